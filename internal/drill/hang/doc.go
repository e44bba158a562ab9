// Package hang owns the flushes of one process: it can make them wait, fail or pass by the path of the file, while the process runs on.
//
// A disk that hangs is not a disk that fails. Writes still land in the page cache, reads are answered, the process lives, holds its connections and
// its lease, and nothing says what is wrong: only fsync does not come back. That is what a stalled storage network or a dying disk looks like, and what
// this package gives to a real process that knows nothing of it: no library to preload, no file system to mount, no build of its own.
//
// # How
//
// The kernel's seccomp filters can hand chosen system calls to a supervisor (seccomp_unotify(2), Linux 5.0). [Disk.Wrap] rewrites a command so that
// a small first step ([Exec], in the same binary) installs a filter for fsync, fdatasync, sync_file_range and syncfs, passes the filter's
// listener to the supervisor over an inherited socket, and executes the real program. From then on every such call of the process, and of those that it
// starts, stands still in the kernel until [Disk.Run] has answered it. A file's path comes from /proc/PID/fd. Those under a held
// directory wait; the rest go on at once, carried out by the kernel itself.
//
//	disk, err := hang.New(logger)
//	cmd := exec.Command(probemesh, "server", ...)
//	err = disk.Wrap(cmd, []string{probemesh, hang.Command})   // probemesh hold-flushes --fd 3 -- probemesh server ...
//	go disk.Run(ctx)          // until the process has ended
//	err = cmd.Start()
//	disk.Hold(etcdDirectory)  // from now on they wait
//	disk.Release()            // those that wait are carried out, and the process goes on
//
// # What it promises
//
//   - Nothing that the process asked for is skipped: a released flush is carried out by the kernel, and only [Disk.Fail] answers in its place, with EIO.
//   - It needs no privileges: the filter sets no_new_privs, as an ordinary process may.
//   - It costs about 20 microseconds a flush (BenchmarkFlush), where the disk itself takes a hundred or more.
//   - A process whose flush waits can be killed. On a disk that really hangs it often could not be; nothing here rests on that.
//   - When the supervisor ends first, every waiting and every later flush of the process fails with ENOSYS: run the supervisor longer than the process.
//
// What it does not hold: reads; writes, unless [Disk.HoldWrites] says so; msync (etcd, bbolt and Prometheus's store do not use it on Linux), and files opened with O_SYNC
// (none of them does either).
package hang
