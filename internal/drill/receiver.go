package drill

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/probemesh/probemesh/internal/localmesh"
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

// Answer is what a receiver does with a delivery.
type Answer struct {
	// Status is the status to answer; 0 is 200.
	Status int
	// After, if not nil, is called when the answer has been sent.
	After func()
}

// Receiver is a webhook that remembers every request, and answers 200 unless told otherwise. It may be used concurrently.
type Receiver struct {
	// URL is where it listens.
	URL string

	address string

	mu     sync.Mutex // guards all below
	server *http.Server
	done   chan struct{}
	got    []Delivery
	answer func(Delivery) Answer
}

// maxBody is the largest notification read: 50 votes with evidence are below 1 MiB.
const maxBody = 8 << 20

func startReceiver() (*Receiver, error) {
	address, err := localmesh.FreeAddress()
	if err != nil {
		return nil, err
	}
	r := &Receiver{URL: "http://" + address + "/hook", address: address}
	return r, r.Open()
}

// Open makes it listen again after Close, at the same address.
func (r *Receiver) Open() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server != nil {
		return nil
	}
	l, err := listenAgain(net.Listen, r.address)
	if err != nil {
		return fmt.Errorf("start the receiver: %w", err)
	}
	server, done := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}, make(chan struct{})
	r.server, r.done = server, done
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	return nil
}

// Close makes it refuse connections, until Open. It may be called twice.
func (r *Receiver) Close() {
	r.mu.Lock()
	server, done := r.server, r.done
	r.server = nil
	r.mu.Unlock()
	if server != nil {
		_ = server.Close()
		<-done
	}
}

// Serve makes it answer on another listener too, for members that cannot reach 127.0.0.1 of this process. It takes the listener over and returns at once; Close
// closes it too.
func (r *Receiver) Serve(l net.Listener) {
	r.mu.Lock()
	defer r.mu.Unlock()
	server := r.server
	go func() { _ = server.Serve(l) }()
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
	if answer == nil {
		return
	}
	a := answer(d)
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(cmp.Or(a.Status, http.StatusOK))
	if a.After != nil {
		_ = http.NewResponseController(w).Flush()
		a.After()
	}
}

// OnDelivery sets what is done with each delivery, from now on: f is called before the answer, and the sender waits for it. Nil answers 200.
func (r *Receiver) OnDelivery(f func(Delivery) Answer) {
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
