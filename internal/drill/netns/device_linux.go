package netns

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs f on a thread of its own. Unless keep, the thread ends with f, so that what f did to it (its namespace) cannot leak into other goroutines.
func onThread(keep bool, f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if keep {
			defer runtime.UnlockOSThread()
		}
		result <- f()
	}()
	return <-result
}

// openTUN makes a TUN device of that name in the namespace of this thread. It goes when the file is closed.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", tunDevice, err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make a TUN device: %w", err)
	}
	return os.NewFile(uintptr(fd), tunDevice), nil
}

// configure gives an interface its address in the /16 that all sites share, and brings it up.
func configure(name, host string) error {
	address, err := netip.ParseAddr(host)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		request uint
		set     func(*unix.Ifreq) error
	}{
		{unix.SIOCSIFADDR, func(i *unix.Ifreq) error { return i.SetInet4Addr(address.AsSlice()) }},
		{unix.SIOCSIFNETMASK, func(i *unix.Ifreq) error { return i.SetInet4Addr([]byte{255, 255, 0, 0}) }},
		{unix.SIOCSIFMTU, func(i *unix.Ifreq) error { i.SetUint32(mtu); return nil }},
	} {
		if err := ioctl(name, step.request, step.set); err != nil {
			return err
		}
	}
	return up(name)
}

// up brings an interface up.
func up(name string) error {
	return ioctl(name, unix.SIOCSIFFLAGS, func(i *unix.Ifreq) error { i.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil })
}

// ioctl makes one request about an interface of this thread's namespace.
func ioctl(name string, request uint, set func(*unix.Ifreq) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := set(ifr); err != nil {
		return err
	}
	return unix.IoctlIfreq(fd, request, ifr)
}
