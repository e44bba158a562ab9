//go:build linux || darwin

package server

import "syscall"

// freeBytes is how much a process without privileges may still write below dir; false when the system does not tell.
func freeBytes(dir string) (uint64, bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return s.Bavail * uint64(s.Bsize), true
}
