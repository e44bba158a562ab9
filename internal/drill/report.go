package drill

import "time"

// Report is the outcome of one run, as -o json prints it. Names of fields and figures are stable.
type Report struct {
	// Drill is the scenario's name, Promise what it is held against.
	Drill   string `json:"drill"`
	Promise string `json:"promise"`
	// Passed is whether every figure holds and the run came to its end.
	Passed bool `json:"passed"`
	// Skipped says why it was not run; empty when it was.
	Skipped string `json:"skipped"`
	// Error says why the run did not come to its end; empty when it did.
	Error string `json:"error"`
	// Version is that of the program.
	Version string `json:"version"`
	// Times, Short, Seed and IntervalSeconds are how it was run; the same seed makes the same choices.
	Times           int     `json:"times"`
	Short           bool    `json:"short"`
	Seed            uint64  `json:"seed"`
	IntervalSeconds float64 `json:"interval_seconds"`
	// StartTime and DurationSeconds are when and how long.
	StartTime       time.Time `json:"start_time"`
	DurationSeconds float64   `json:"duration_seconds"`
	// Figures are in the order of the table.
	Figures []Figure `json:"figures"`
	// Samples are the measurements behind the distributions, in seconds, in the order in which they were taken, by the distribution's name.
	Samples map[string][]float64 `json:"samples"`
	// Notes are remarks for people, such as what could not be measured here.
	Notes []string `json:"notes"`
	// Data is where data and logs of the processes are; empty when they were deleted.
	Data string `json:"data"`
}

// Failed are the figures that do not hold.
func (r *Report) Failed() []Figure {
	var out []Figure
	for _, f := range r.Figures {
		if !f.Passed {
			out = append(out, f)
		}
	}
	return out
}

// Figure is the figure of that name, or nil.
func (r *Report) Figure(name string) *Figure {
	for i := range r.Figures {
		if r.Figures[i].Name == name {
			return &r.Figures[i]
		}
	}
	return nil
}
