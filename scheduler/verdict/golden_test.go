package verdict

import (
	"flag"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write the expected output of the goldens anew")

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// The files of testdata are prose, then blocks: commands, a line of dashes, the answer, an empty line. The commands:
//
//	policy quorum=N fresh=DURATION [distinct=A,B]     forgets all votes
//	vote PROBER DATACENTER ok|fail|error [ago=D] [since=D] [streak=N] [KEY=VALUE of a domain] [drained] [aside] [degraded] [level=N]
//	fold                                              the tally
//	recovered steady=DURATION                         whether it is over
//	limping steady=DURATION                           how many datacenters are, or were lately, degraded
func TestGoldens(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) < 5 {
		t.Fatalf("%d goldens, want five or more", len(files))
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got := play(t, string(b))
		if *rewrite {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if got != string(b) {
			t.Errorf("%s: got\n%s", file, got)
		}
	}
}

func play(t *testing.T, text string) string {
	var out strings.Builder
	var p Policy
	var votes []Vote
	var said []string
	skip := false
	for _, l := range append(strings.Split(strings.TrimRight(text, "\n"), "\n"), "") {
		f := strings.Fields(l)
		switch {
		case len(f) == 0:
			if len(said) > 0 {
				out.WriteString("----\n" + strings.Join(said, "\n") + "\n")
			}
			out.WriteString("\n")
			said, skip = nil, false
			continue
		case skip, f[0] == "----":
			skip = true
			continue
		case f[0] == "policy":
			p, votes = policyOf(f[1:]), nil
		case f[0] == "vote":
			votes = append(votes, voteOf(f[1:]))
		case f[0] == "fold":
			said = append(said, describe(p, Fold(p, votes, noon), votes))
		case f[0] == "recovered":
			d, _ := time.ParseDuration(strings.TrimPrefix(f[1], "steady="))
			said = append(said, fmt.Sprintf("recovered: %t, steady in %d, quorum %d", Recovered(p, votes, noon, d), Steady(p, votes, noon, d), p.Quorum))
		case f[0] == "limping":
			d, _ := time.ParseDuration(strings.TrimPrefix(f[1], "steady="))
			said = append(said, fmt.Sprintf("limping: %d", Limping(p, votes, noon, d)))
		case f[0] != "#":
			t.Fatalf("no command %q", l)
		}
		out.WriteString(l + "\n")
	}
	return strings.TrimRight(out.String(), "\n") + "\n"
}

func policyOf(f []string) (p Policy) {
	for _, o := range f {
		switch k, v, _ := strings.Cut(o, "="); k {
		case "quorum":
			p.Quorum, _ = strconv.Atoi(v)
		case "fresh":
			p.Fresh, _ = time.ParseDuration(v)
		case "distinct":
			p.Distinct = strings.Split(v, ",")
		}
	}
	return p
}

func voteOf(f []string) Vote {
	v := Vote{Prober: f[0], Datacenter: f[1], Streak: 1, Start: noon.Add(-10 * time.Second), Domains: map[string]string{}}
	v.Outcome = map[string]Outcome{"ok": OK, "fail": Fail, "error": Fault, "none": None}[f[2]]
	v.Since, v.Level = v.Start, 1
	for _, o := range f[3:] {
		k, x, _ := strings.Cut(o, "=")
		d, _ := time.ParseDuration(x)
		switch k {
		case "ago":
			v.Start = noon.Add(-d)
			v.Since = v.Start
		case "since":
			v.Since = noon.Add(-d)
		case "streak":
			v.Streak, _ = strconv.Atoi(x)
		case "level":
			v.Level, _ = strconv.Atoi(x)
		case "degraded":
			v.Degraded = true
		case "drained":
			v.Drained = true
		case "aside":
			v.Aside = true
		default:
			v.Domains[k] = x
		}
	}
	v.LevelSince = v.Since
	if v.Level < v.Streak {
		v.LevelSince = v.Start
	}
	return v
}

func describe(p Policy, t Tally, votes []Vote) string {
	s := fmt.Sprintf("%s %s: of %d heard, %d failing, %d answering, %d of two minds; quorum %d", t.Verdict, t.Reason, t.Fresh, t.Failing, t.OK, t.Mixed, p.Quorum)
	if t.Degraded > 0 {
		s += fmt.Sprintf("; %d degraded", t.Degraded)
	}
	if t.Undistinct != "" {
		s += "; all failing share one " + t.Undistinct
	}
	var who []string
	for m := t.FailVotes; m != 0; m &= m - 1 {
		who = append(who, votes[bits.TrailingZeros64(m)].Prober)
	}
	if len(who) > 0 {
		s += "; failing: " + strings.Join(who, " ")
	}
	return s
}
