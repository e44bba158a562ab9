package timetable

import (
	"context"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// blocked runs a timetable with one place, which `checks/long` holds for 5 s while `checks/a` and `checks/b` wait, and lets change do what it likes with it. It gives what was probed in these
// and the two seconds after.
func blocked(t *testing.T, change func(*Timetable)) (probed []string) {
	var d diary
	run(t, &testClock{}, 1, func(_ context.Context, check string, due time.Time) {
		d.note(check, due)
		d.mu.Lock()
		probed = append(probed, check)
		d.mu.Unlock()
		if check == "checks/long" {
			time.Sleep(5 * time.Second)
		}
	}, func(tt *Timetable) {
		tt.Set("checks/long", time.Hour, time.Second)
		tt.Set("checks/a", time.Hour, 2*time.Second)
		tt.Set("checks/b", time.Hour, 3*time.Second)
		time.Sleep(4 * time.Second)
		if s := tt.Stats(); s.Waiting != 2 || s.Running != 1 {
			t.Errorf("before: %+v", s)
		}
		change(tt)
		time.Sleep(4 * time.Second)
		if s := tt.Stats(); s.Waiting != 0 || s.Running != 0 {
			t.Errorf("after: %+v", s)
		}
	})
	return probed
}

func TestARemovedCheckThatWaitsIsNotProbed(t *testing.T) {
	got := blocked(t, func(tt *Timetable) {
		tt.Remove("checks/a")
		tt.Remove("checks/a")
		if s := tt.Stats(); s.Waiting != 1 {
			t.Errorf("%d wait", s.Waiting)
		}
	})
	if !slices.Equal(got, []string{"checks/long", "checks/b"}) {
		t.Errorf("probed %v", got)
	}
}

func TestACheckThatWasRemovedAndPutInAgainIsProbedWhenItIsDue(t *testing.T) {
	for _, c := range []struct {
		phase time.Duration
		want  []string
	}{
		{4500 * time.Millisecond, []string{"checks/long", "checks/a", "checks/b"}}, // due while its old start would still wait: it has that one's place
		{7 * time.Second, []string{"checks/long", "checks/b", "checks/a"}},
		{time.Minute, []string{"checks/long", "checks/b"}},
	} {
		got := blocked(t, func(tt *Timetable) {
			tt.Remove("checks/a")
			tt.Set("checks/a", time.Hour, c.phase)
		})
		if !slices.Equal(got, c.want) {
			t.Errorf("phase %v: probed %v", c.phase, got)
		}
	}
}

func TestTheHeapGivesRowsInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h rowHeap
		due := map[*Row]int64{}
		var rows []*Row
		time := rapid.Int64Range(0, 50)
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				r := &Row{}
				due[r] = time.Draw(t, "due")
				h.push(r, due[r])
				rows = append(rows, r)
			},
			"fix": func(t *rapid.T) {
				if len(rows) == 0 {
					t.Skip()
				}
				r := rapid.SampledFrom(rows).Draw(t, "row")
				due[r] = time.Draw(t, "due")
				h.fix(r.index, due[r])
			},
			"remove": func(t *rapid.T) {
				if len(rows) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(rows)-1).Draw(t, "row")
				h.remove(rows[i].index)
				delete(due, rows[i])
				rows = slices.Delete(rows, i, i+1)
			},
			"": func(t *rapid.T) {
				if len(h) != len(due) {
					t.Fatalf("%d rows, want %d", len(h), len(due))
				}
				for i, p := range h {
					if p.row.index != i || p.due != due[p.row] {
						t.Fatalf("place %d has a row of place %d, due %d, want %d", i, p.row.index, p.due, due[p.row])
					}
					if p.due < h[0].due || i > 0 && p.due < h[(i-1)/2].due {
						t.Fatalf("place %d is due before its parent", i)
					}
				}
			},
		})
	})
}
