build:
	swift build -c release -Xswiftc -static-stdlib --product swiftattn
