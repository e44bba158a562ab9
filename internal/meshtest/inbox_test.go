package meshtest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

type netConn = net.Conn

// inbox is the receiver, an HTTP server on the simulated network. It knows idempotency keys: a message has its effect once.
type inbox struct {
	server *http.Server
	done   chan struct{}
	file   string // the break-glass file, which names the same receiver

	mu      sync.Mutex
	seen    []delivery
	posts   int
	failing bool          // it answers 503
	losing  bool          // it takes the message, and the connection breaks before the answer
	slow    time.Duration // it answers that late
}

type delivery struct {
	key string
	at  time.Time
	n   *meshv1.Notification
}

// decided is when it was decided.
func (d delivery) decided() time.Time {
	if t := d.n.GetDecideTime(); t != nil {
		return t.AsTime()
	}
	return d.at
}

const inboxAddress = "127.0.0.1:9000"

func openInbox(m *mesh) *inbox {
	b := &inbox{done: make(chan struct{}), file: filepath.Join(m.t.TempDir(), "glass.yaml")}
	b.server = &http.Server{Handler: b}
	l := m.net.listen("ops", inboxAddress)
	go func() {
		defer close(b.done)
		_ = b.server.Serve(l) // ends with close
	}()
	text := fmt.Sprintf("receivers:\n  - name: receivers/ops\n    webhook: {url: \"http://%s/hook\"}\n", inboxAddress)
	if err := os.WriteFile(b.file, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return b
}

func (b *inbox) receiver() *meshv1.Receiver {
	return &meshv1.Receiver{Name: "receivers/ops", MeshIncidents: true, Webhook: &meshv1.Webhook{Url: "http://" + inboxAddress + "/hook"}}
}

func (b *inbox) close() {
	b.server.Close()
	<-b.done
}

func (b *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender is gone
	}
	n := &meshv1.Notification{}
	if err := protojson.Unmarshal(body, n); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	b.posts++
	failing, losing, slow := b.failing, b.losing, b.slow
	if !failing {
		b.takeLocked(delivery{r.Header.Get("Idempotency-Key"), time.Now(), n})
	}
	b.mu.Unlock()
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-r.Context().Done():
		}
	}
	switch {
	case failing:
		w.WriteHeader(http.StatusServiceUnavailable)
	case losing:
		panic(http.ErrAbortHandler) // the connection is closed without an answer
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (b *inbox) takeLocked(d delivery) {
	for _, x := range b.seen {
		if x.key == d.key {
			return
		}
	}
	b.seen = append(b.seen, d)
}

// set changes how it answers.
func (b *inbox) set(f func(b *inbox)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b)
}

// of gives what came of a check, or of the mesh with an empty name, oldest first.
func (b *inbox) of(check string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, d := range b.seen {
		if d.n.GetCheck() == check {
			out = append(out, d.n.GetTransition().String())
		}
	}
	return out
}

func (b *inbox) all() []delivery {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.seen)
}
