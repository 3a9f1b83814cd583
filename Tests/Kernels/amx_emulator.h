/* AMX on machines without it: instructions that fault are carried out, exactly, by the signal handler.
 *
 * Where the machine has AMX nothing faults and the real instructions run. A test that passes here has therefore checked
 * the machine code that ships, but for its speed. */
#ifndef AMX_EMULATOR_H
#define AMX_EMULATOR_H

#include <stdbool.h>

/* Handles SIGILL for this process; any other illegal instruction, and AMX used as the machine would refuse it, goes to
 * `otherwise`. */
void amx_emulator_install(void (*otherwise)(int));
/* Whether an instruction has been emulated so far. */
bool amx_emulator_used(void);

#endif
