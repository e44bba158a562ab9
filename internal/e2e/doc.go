// Package e2e holds the mesh to its promises from outside: real processes, real sockets, real kills. It has tests only.
//
//	go test ./internal/e2e            # everything that this machine can do, some five minutes
//	go test -short ./internal/e2e     # without what takes longer than some 20 seconds
//	go test -v -run TenOutages ./internal/e2e
//
// The binary is built once per test process; each test starts the processes it needs on free ports of 127.0.0.1, with data below its own temporary
// directory, and prints the figures it measured with -v. Nothing outlives a test: processes are killed at its end, whatever its outcome, and by the
// kernel when the test process itself dies. When a test fails, the last lines of its processes' logs are printed.
//
// # What is skipped, and when
//
//   - With -short: ten outages in a row, the rounds of SIGKILL around an opening, the local mesh that loses its leader, the 30 s without a server, and the drills.
//   - Not on Linux: all of it, since the tests use /proc, parent-death signals and the kernel's listen queues.
//   - Without root and network namespaces (ip, nsenter): the part of the datacenter test that drops packets on a real link. The same claim is always
//     tested by a target that looks up, in /proc, which prober's process is calling, and refuses that one.
//   - Without root and tmpfs mounts (unshare): the full disks, of a prober and of a server.
//   - Without ICMP sockets on this machine, the check of kind icmp is expected to be refused with a reason instead of coming up.
//
// # Variables
//
//   - PROBEMESH_E2E_BINARY: use this program instead of building one.
//   - PROBEMESH_E2E_ABSENCE: how long the server is away in the history test, for example 2m; default 30s.
//   - PROBEMESH_E2E_ALL: run everything, which takes ten minutes, and four more for the 5,000: every drill, a broken build at every stage, a liar of every kind, and 5,000 checks that fail together instead of 300.
//   - PROBEMESH_E2E_CHECKS: how many checks fail together, 100 to 20,000.
//   - PROBEMESH_E2E_ROUNDS: how many rounds of SIGKILL around an opening; default 4.
package e2e
