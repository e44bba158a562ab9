// Package version says which build of probemesh this is.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version is the release, set by the linker (-X github.com/probemesh/probemesh/internal/version.Version=1.2.3). A build without it is "dev".
var Version = "dev"

// Protocol is the version of the session protocol that this build speaks; see session_service.proto.
const Protocol = 1

// Build is what a prober or server states as its build, a failure domain: the version, with the commit when it is known and the version is "dev".
func Build() string {
	c := Commit()
	if Version != "dev" || c == "unknown" {
		return Version
	}
	if len(c) > 12 {
		c = c[:12]
	}
	return "dev-" + c
}

// Commit is the commit that the binary was built from, or "unknown".
func Commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	commit, dirty := "unknown", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "-dirty"
			}
		}
	}
	return commit + dirty
}

// String is one line with version, commit, Go version and platform.
func String() string {
	return fmt.Sprintf("probemesh %s (commit %s, %s, %s/%s)", Version, Commit(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
