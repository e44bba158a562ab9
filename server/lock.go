package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

// lockData makes the data directory and takes it for this process; the end of the process gives it back. It is done before anything in there is touched, so
// that a second server on the same data does no harm to the first.
func lockData(dir string) (*fileutil.LockedFile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data: %w; choose a directory that can be written with --data", err)
	}
	lock, err := fileutil.TryLockFile(filepath.Join(dir, "server.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	switch {
	case errors.Is(err, fileutil.ErrLocked):
		return nil, fmt.Errorf("the data directory %s is in use by another server; stop that one, or choose another directory with --data", dir)
	case err != nil:
		return nil, fmt.Errorf("the data directory %s cannot be locked: %w; mend its permissions, or choose another with --data", dir, err)
	}
	return lock, nil
}
