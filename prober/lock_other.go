//go:build !unix

package prober

import (
	"os"
	"path/filepath"
)

// lock only marks the directory: this system has no flock.
func lock(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
}
