package hang

import (
	"path/filepath"
	"strings"
)

// answer is what becomes of a flush.
type answer int

const (
	pass answer = iota // the kernel carries it out
	hold               // it waits
	fail               // it is answered with EIO
)

// rules say what becomes of the flushes of which files. The zero value lets all pass.
type rules struct {
	held, failed []string // directories or files, absolute, without symbolic links
}

// answer is what becomes of a flush of the file at path. A failing directory inside of a held one fails.
func (r rules) answer(path string) answer {
	switch {
	case under(path, r.failed):
		return fail
	case under(path, r.held):
		return hold
	}
	return pass
}

func under(path string, roots []string) bool {
	for _, r := range roots {
		if path == r || strings.HasPrefix(path, strings.TrimSuffix(r, "/")+"/") {
			return true
		}
	}
	return false
}

// resolve makes paths absolute and follows their symbolic links, as /proc shows them. What does not exist yet is kept as it is below what does.
func resolve(paths []string) ([]string, error) {
	var out []string
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		out = append(out, existing(abs))
	}
	return out, nil
}

func existing(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(existing(parent), filepath.Base(path))
}
