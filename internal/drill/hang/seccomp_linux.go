//go:build linux && (amd64 || arm64)

package hang

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// calls are the system calls that are held, with those that write when writes; each has the file as its first argument.
func calls(writes bool) map[uint32]string {
	all := map[uint32]string{unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync", unix.SYS_SYNC_FILE_RANGE: "sync_file_range", unix.SYS_SYNCFS: "syncfs"}
	if writes {
		all[unix.SYS_WRITE], all[unix.SYS_PWRITE64], all[unix.SYS_WRITEV], all[unix.SYS_FTRUNCATE] = "write", "pwrite64", "writev", "ftruncate"
	}
	return all
}

func callName(nr int32) string { return calls(true)[uint32(nr)] }

// notification is struct seccomp_notif of linux/seccomp.h.
type notification struct {
	ID    uint64
	PID   uint32 // the thread's, as the supervisor sees it
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// reply is struct seccomp_notif_resp.
type reply struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// seccomp is seccomp(2) with a pointer argument, for operations that return nothing of interest.
func seccomp(operation, flags uintptr, arg *uint32) error {
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, operation, flags, uintptr(unsafe.Pointer(arg))); errno != 0 {
		return errno
	}
	return nil
}

func receiveNotification(listener int) (notification, error) {
	var n notification // the kernel refuses one that is not zero
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return n, errno
	}
	return n, nil
}

func sendAnswer(listener int, id uint64, eio bool) error {
	r := reply{id: id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	if eio {
		r.flags, r.err = 0, -int32(unix.EIO)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return errno
	}
	return nil
}

// alive tells whether a call still waits: its process may have been killed.
func alive(listener int, id uint64) bool {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_ID_VALID, uintptr(unsafe.Pointer(&id)))
	return errno == 0
}

// receiveFD takes one file from the socket; -1 when the other end was closed without sending one.
func receiveFD(socket int) (int, error) {
	payload, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(socket, payload, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("take the listener of the process: %w", err)
	}
	if n == 0 && oobn == 0 {
		return -1, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) == 0 {
		return -1, fmt.Errorf("the process sent no listener (%w)", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("the process sent no listener (%w)", err)
	}
	return fds[0], nil
}

// Exec makes this process one whose flushes are held by whoever has the other end of the socket fd, and then becomes the program argv[0] with the
// arguments argv, in the same environment. It does not return unless something failed.
func Exec(fd int, writes bool, argv []string) error {
	if len(argv) == 0 {
		return errors.New("no program to run; give it after --")
	}
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the filter is this thread's, and exec carries it over to the whole program
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	listener, err := install(writes)
	if err != nil {
		return fmt.Errorf("install a filter for flushes: %w", err)
	}
	if err := unix.Sendmsg(fd, []byte{0}, unix.UnixRights(listener), nil, 0); err != nil {
		return fmt.Errorf("hand the listener over: %w; --fd must be a socket inherited from the supervisor", err)
	}
	unix.Close(listener) // the kernel closes it on exec anyway
	unix.Close(fd)
	return fmt.Errorf("run %s: %w", program, unix.Exec(program, argv, os.Environ()))
}

// install puts the filter on this thread and returns its listener.
func install(writes bool) (int, error) {
	filter := program(writes)
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// A signal to the process must not take a call back that a supervisor has seen already (Linux 5.19); older kernels make the call anew then.
	flags := uintptr(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno == unix.EINVAL {
		fd, _, errno = unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
	}
	runtime.KeepAlive(filter)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// program is the filter: the calls above go to the supervisor, all others pass. Offsets are those of struct seccomp_data: nr at 0, arch at 4.
func program(writes bool) []unix.SockFilter {
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	held := calls(writes)
	n := len(held)
	p := []unix.SockFilter{
		{Code: load, K: 4},
		{Code: equal, K: arch(), Jt: 1, Jf: 0},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: load, K: 0},
	}
	for nr := range held {
		// To the last instruction: over the comparisons that remain and the return that lets pass.
		p = append(p, unix.SockFilter{Code: equal, K: nr, Jt: uint8(n), Jf: 0})
		n--
	}
	return append(p, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW}, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF})
}

func arch() uint32 {
	if runtime.GOARCH == "arm64" {
		return unix.AUDIT_ARCH_AARCH64
	}
	return unix.AUDIT_ARCH_X86_64
}
