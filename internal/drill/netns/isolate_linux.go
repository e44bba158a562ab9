package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tunDevice = "/dev/net/tun"
	// isolatedEnv tells a program that it was started by Isolate.
	isolatedEnv = "DRILL_NETWORK_OF_ITS_OWN"
)

// Isolated tells whether this process was started by [Isolate].
func Isolated() bool { return os.Getenv(isolatedEnv) != "" }

// Supported says why this process cannot have networks of its own, or nil. It tries, with a process that ends at once.
func Supported() error {
	f, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w; datacenters with networks of their own need it: load the kernel module tun (modprobe tun), or give the container the device (--device %s)", err, tunDevice)
	}
	f.Close()
	if Isolated() {
		return nil
	}
	if err := startIsolated(exec.Command("/proc/self/exe", "-h")); err != nil {
		return err
	}
	return nil
}

// startIsolated runs a command for as long as it takes to see that it can be started in namespaces of its own.
func startIsolated(cmd *exec.Cmd) error {
	isolate(cmd)
	if err := onThread(true, cmd.Start); err != nil {
		return refused(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return nil
}

func refused(err error) error {
	if os.Geteuid() == 0 {
		return fmt.Errorf("this process may not make a network namespace (%w), though it is root; in a container it needs the capabilities NET_ADMIN and SYS_ADMIN", err)
	}
	return fmt.Errorf("this user may not make a network namespace (%w); run it as root, or allow user namespaces to users (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)", err)
}

// isolate gives a command namespaces of its own. Root needs no user namespace, and may be forbidden to make one.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
}

// Isolate runs this program again, with the same arguments, files and environment, in a network of its own, with a loopback interface, where [New] can be called; it is root of a user
// namespace there unless it is root already. It returns true with the exit code when that run has ended; the caller then ends with it. In that run itself it returns
// false at once, and the caller goes on. When ctx ends, the run gets SIGTERM, and SIGKILL a minute later; it never outlives this process.
func Isolate(ctx context.Context) (done bool, code int, err error) {
	if Isolated() {
		if err := up("lo"); err != nil {
			return false, 0, fmt.Errorf("bring up the loopback interface of the network of this run: %w", err)
		}
		return false, 0, nil
	}
	if err := Supported(); err != nil {
		return false, 0, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	if self, err := os.Executable(); err == nil {
		cmd.Args[0] = self
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), isolatedEnv+"=1")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	isolate(cmd)
	// The kernel kills the run when the thread that started it ends, so this one waits for it.
	err = onThread(true, cmd.Run)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		return true, exit.ExitCode(), nil
	case err != nil:
		return true, 1, fmt.Errorf("run this program in a network of its own: %w", err)
	}
	return true, 0, nil
}

// Exec moves this process into the network that the file descriptor fd refers to, and then becomes the program argv[0] with the arguments argv, in the same
// environment. It does not return unless something failed.
func Exec(fd int, argv []string) error {
	if len(argv) == 0 {
		return errors.New("no program to run; give it after --")
	}
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread() // exec keeps the namespace of the thread that calls it
	defer runtime.UnlockOSThread()
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network of --fd %d: %w", fd, err)
	}
	unix.Close(fd)
	return fmt.Errorf("run %s: %w", program, unix.Exec(program, argv, os.Environ()))
}
