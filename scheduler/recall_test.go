package scheduler

import (
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestAVerdictGoesOnFromBeforeTheServerWasStartedAnew(t *testing.T) {
	for name, early := range map[string]bool{"recalled before the first verdict": true, "recalled after it": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.probers("ams", "fra", "iad")
			long := r.now.Add(-40 * time.Hour)
			recall := Recalled{Verdicts: map[string]Recollection{
				"checks/shop": {meshv1.CheckStatus_UP, long}, "checks/mended": {meshv1.CheckStatus_DOWN, long}, "checks/gone": {meshv1.CheckStatus_UP, long},
			}}
			if early {
				r.apply(recall)
			}
			for _, c := range []string{"shop", "mended", "new"} {
				r.check(tcpCheck(c, 2))
			}
			r.after(3 * time.Second)
			for _, c := range []string{"shop", "mended", "new"} {
				r.votes(c, ok, "ams", "fra", "iad")
				r.want(c, "UP QUORUM_UP")
			}
			began := r.now
			if !early {
				r.apply(recall)
			}
			r.wantSince("shop", long)
			r.wantSince("mended", began)
			r.wantSince("new", began)
			r.after(15 * time.Second)
			r.votes("shop", fail, "ams", "fra", "iad")
			r.after(20 * time.Second)
			r.votes("shop", ok, "ams", "fra", "iad")
			r.after(11 * time.Second)
			r.votes("shop", ok, "ams", "fra", "iad")
			r.want("shop", "UP QUORUM_UP")
			r.apply(recall)
			r.wantSince("shop", r.now) // it was down meanwhile: what is recalled is over
		})
	}
}

func (r *rig) wantSince(check string, want time.Time) {
	r.t.Helper()
	if st, _ := r.s.Status("checks/"+check, r.now, false); st.GetSince().AsTime().Sub(want).Abs() > 10*time.Millisecond { // a vote takes one
		r.t.Errorf("%s is %s since %s, want %s", check, st.GetVerdict(), st.GetSince().AsTime(), want)
	}
}
