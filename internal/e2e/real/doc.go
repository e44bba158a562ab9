// Package real holds every kind of probe to real servers: those of Debian's packages, started by hand on ports of 127.0.0.1 with configuration and certificates
// made on the spot, and servers of grpc-go and coder/websocket in processes of their own. It has tests only.
//
//	go test -v ./internal/e2e/real    # prints the table: kind, server, state, outcome, class, phase, sentence
//
// Each server is probed while it is up, while it answers something else than the check wants, while it hangs (all its processes are stopped by SIGSTOP: the kernel still accepts
// connections for them) and once it is gone (killed), by checks as a user writes them; outcome, class of error, failed phase and a part of the sentence must be right.
//
// A server that is not installed is skipped with the command that installs it. Nothing is started as a service and nothing outlives the tests; files are below temporary
// directories. Postfix and Dovecot need root, and so do the network namespaces of the icmp cases.
package real
