package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// Scenario is a drill that can be run by its name.
type Scenario struct {
	// Name is what is typed, for example "leader-kill".
	Name string
	// Summary is one line: what is done.
	Summary string
	// Proves says which promise it holds the mesh to, in a sentence or two.
	Proves string
	// Promise is what is promised, for example "unbroken: losing a server delays a verdict by at most seconds".
	Promise string
	// Times is how often it is repeated unless told otherwise, ShortTimes the same for a short run. At least 1.
	Times, ShortTimes int
	// About and ShortAbout are about how long it takes with these.
	About, ShortAbout time.Duration
	// Requires is what the machine must have.
	Requires []Requirement
	// Run does it.
	Run func(ctx context.Context, r *Run) error
}

// Requirement is something that a machine has or has not.
type Requirement struct {
	// Text is what is needed, for example "root".
	Text string
	// Check gives nil where it is there, else an error that says what is missing and how to get it.
	Check func() error
}

// Missing gives what the machine lacks for the scenario, nil when nothing.
func (s Scenario) Missing() error {
	var faults []error
	for _, q := range s.Requires {
		if err := q.Check(); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// Unix requires signals that pause processes.
func Unix() Requirement {
	return Requirement{"Linux or another Unix", func() error {
		if runtime.GOOS == "windows" || runtime.GOOS == "plan9" || runtime.GOOS == "js" {
			return fmt.Errorf("it pauses processes, which %s cannot do; run it on Linux", runtime.GOOS)
		}
		return nil
	}}
}

// Linux requires Linux.
func Linux() Requirement {
	return Requirement{"Linux", func() error {
		if runtime.GOOS != "linux" {
			return fmt.Errorf("it needs Linux, and this is %s", runtime.GOOS)
		}
		return nil
	}}
}

// Root requires to be root, for example to make network namespaces.
func Root() Requirement {
	return Requirement{"root", func() error {
		if os.Geteuid() != 0 {
			return errors.New("it needs root; run it with sudo, or in a container of its own")
		}
		return nil
	}}
}

// Tool requires a program in PATH.
func Tool(name string) Requirement {
	return Requirement{"`" + name + "`", func() error {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("it needs the program %q, which is not in PATH; install it", name)
		}
		return nil
	}}
}
