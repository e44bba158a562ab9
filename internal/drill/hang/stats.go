package hang

import "time"

// Command is the hidden command of the probemesh binary that runs [Exec].
const Command = "hold-flushes"

// Flush is one call that waits.
type Flush struct {
	// Call is the system call, for example "fdatasync".
	Call string
	// Path is the file, as /proc shows it; empty when the process had closed it or was gone.
	Path string
	// Since is when the call was made.
	Since time.Time
}

// Stats counts the flushes of a process since it started. Every flush is in exactly one of Passed, Held and Failed, but for those that waited first and
// were then released (Held and Passed) or failed (Held and Failed).
type Stats struct {
	// Passed were carried out by the kernel.
	Passed uint64
	// Held had to wait.
	Held uint64
	// Failed were answered with EIO.
	Failed uint64
	// Waiting wait now.
	Waiting int
	// Lost were those whose process had gone before they could be answered.
	Lost uint64
}
