//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// delivery is one request that a receiver got.
type delivery struct {
	at   time.Time
	key  string
	note *meshv1.Notification
}

// receiver is a webhook that remembers what it was told.
type receiver struct {
	url string

	mu     sync.Mutex
	got    []delivery
	answer func(delivery) int // status to answer; nil: 200
}

func startReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		d := delivery{at: time.Now(), key: req.Header.Get("Idempotency-Key"), note: &meshv1.Notification{}}
		body, err := io.ReadAll(req.Body)
		if err == nil {
			err = protojson.Unmarshal(body, d.note)
		}
		if err != nil || d.key == "" || !json.Valid(body) {
			t.Errorf("a webhook that is not as documented: key %q, %v\n%s", d.key, err, body)
		}
		r.mu.Lock()
		r.got = append(r.got, d)
		answer := r.answer
		r.mu.Unlock()
		if answer != nil {
			w.WriteHeader(answer(d))
		}
	}))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	r.url = s.URL + "/hook"
	return r
}

// onDelivery sets what is answered from now on; nil is 200.
func (r *receiver) onDelivery(f func(delivery) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

func (r *receiver) all() []delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]delivery(nil), r.got...)
}

// distinct are the deliveries without those that repeat a key.
func (r *receiver) distinct() []delivery {
	seen := map[string]bool{}
	var list []delivery
	for _, d := range r.all() {
		if !seen[d.key] {
			seen[d.key] = true
			list = append(list, d)
		}
	}
	return list
}

// await waits for the n-th distinct delivery and returns it; it must be of that transition.
func (r *receiver) await(t *testing.T, n int, want meshv1.Notification_Transition) delivery {
	t.Helper()
	var list []delivery
	until(t, fmt.Sprintf("delivery %d, %s", n, want), func() (bool, string) {
		list = r.distinct()
		return len(list) >= n, story(list)
	})
	if got := list[n-1].note.GetTransition(); got != want {
		t.Fatalf("delivery %d is %s, want %s; all: %s", n, got, want, story(list))
	}
	return list[n-1]
}

// story lists transitions for messages.
func story(list []delivery) string {
	var words []string
	for _, d := range list {
		words = append(words, fmt.Sprintf("%s %s (%s)", d.note.GetTransition(), strings.TrimPrefix(d.note.GetCheck(), "checks/"), d.key))
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

// yaml is the receiver in a configuration file; further lines are fields of it.
func (r *receiver) yaml(name string, fields ...string) string {
	y := "receivers:\n  - name: receivers/" + name + "\n    webhook: {url: \"" + r.url + "\"}\n"
	for _, f := range fields {
		y += "    " + f + "\n"
	}
	return y
}

func containsAll(s string, words ...string) bool {
	for _, w := range words {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}
