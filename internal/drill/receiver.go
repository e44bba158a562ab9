package drill

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Delivery is one request that the receiver got.
type Delivery struct {
	// At is when its last byte had come, by this process's clock.
	At time.Time
	// Key is its Idempotency-Key.
	Key string
	// Note is its body.
	Note *meshv1.Notification
	// Fault says what is not as documented: a body that is no Notification, a key that is missing. Empty when nothing is.
	Fault string
}

// Receiver is a webhook that remembers every request, and answers 200 unless told otherwise. It may be used concurrently.
type Receiver struct {
	// URL is where it listens.
	URL string

	server *http.Server
	done   chan struct{}

	mu     sync.Mutex // guards all below
	got    []Delivery
	answer func(Delivery) int
}

// maxBody is the largest notification read: 50 votes with evidence are below 1 MiB.
const maxBody = 8 << 20

func startReceiver() (*Receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	r := &Receiver{URL: "http://" + l.Addr().String() + "/hook", done: make(chan struct{})}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(r.done)
		_ = r.server.Serve(l)
	}()
	return r, nil
}

// Serve makes the receiver answer on another listener too, for members that cannot reach 127.0.0.1 of this process. It takes the listener over and returns at once.
func (r *Receiver) Serve(l net.Listener) { go func() { _ = r.server.Serve(l) }() }

func (r *Receiver) stop() {
	_ = r.server.Close()
	<-r.done
}

// ServeHTTP takes a notification in.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, maxBody))
	d := Delivery{At: time.Now(), Key: req.Header.Get("Idempotency-Key"), Note: &meshv1.Notification{}}
	if err != nil {
		return // the sender has gone in the middle: it has told nobody anything
	}
	if err := protojson.Unmarshal(body, d.Note); err != nil {
		d.Fault = "the body is no Notification: " + err.Error()
	} else if d.Key == "" {
		d.Fault = "there is no Idempotency-Key"
	}
	r.mu.Lock()
	r.got = append(r.got, d)
	answer := r.answer
	r.mu.Unlock()
	if answer != nil {
		w.WriteHeader(answer(d))
	}
}

// OnDelivery sets what is done with each delivery before it is answered, from now on: f gives the status, and the sender waits for it. Nil answers 200.
func (r *Receiver) OnDelivery(f func(Delivery) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

// All are the deliveries so far, in the order in which they came, repeats included.
func (r *Receiver) All() []Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}
