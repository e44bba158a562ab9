package probe

import (
	"crypto/sha256"
	"runtime"
	"sync"
	"weak"

	"google.golang.org/protobuf/proto"
)

// Shared lets checks that say the same have in common what that compiles to: in most meshes thousands of checks have the same few options, and one private authority signs for all. What no check uses
// any more is forgotten. Its methods, and the functions that it is given to, may be called by several goroutines at once. A nil Shared shares nothing.
type Shared struct {
	mu   sync.Mutex
	kept map[sharedKey]any // of weak.Pointer[T], by what the value was compiled of
}

// sharedKey is the hash of what a value is, and of the text that it was compiled of.
type sharedKey [sha256.Size]byte

// NewShared makes a Shared for whoever is given it.
func NewShared() *Shared { return &Shared{kept: make(map[sharedKey]any)} }

// Share is what a text compiles to: the value that others hold already, or a new one. what names the sort of value, of which there is one type; all that compile reads must be in the text. The value must
// not be changed. An error is not kept.
func Share[T any](s *Shared, what, text string, compile func() (*T, error)) (*T, error) {
	if s == nil {
		return compile()
	}
	key := sharedKey(sha256.Sum256([]byte(what + "\x00" + text)))
	if known := held[T](s, key); known != nil {
		return known, nil
	}
	value, err := compile() // which may share what it is made of
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[key] = weak.Make(value)
	runtime.AddCleanup(value, func(key sharedKey) { forget[T](s, key) }, key)
	return value, nil
}

// held is the value that others hold of a key; nil when nobody does.
func held[T any](s *Shared, key sharedKey) *T {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, _ := s.kept[key].(weak.Pointer[T])
	return known.Value()
}

// ShareMessage is a message that equals m: one that others hold already, or m. It must not be changed. A nil message stays nil.
func ShareMessage[T any, M interface {
	*T
	proto.Message
}](s *Shared, m M) M {
	if m == nil || s == nil {
		return m
	}
	same, err := Share(s, string(m.ProtoReflect().Descriptor().FullName()), Text(m), func() (*T, error) { return (*T)(m), nil })
	if err != nil {
		return m
	}
	return M(same)
}

// Text is a message as a text for [Share]: messages that are not equal have different ones. A nil message has one too.
func Text(m proto.Message) string {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic("probe: " + err.Error()) // it came over gRPC, so it can be encoded
	}
	return string(encoded)
}

// forget drops a value that is gone, unless it has been made anew since.
func forget[T any](s *Shared, key sharedKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.kept[key].(weak.Pointer[T]); ok && known.Value() == nil {
		delete(s.kept, key)
	}
}

// size is how many values are remembered.
func (s *Shared) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.kept)
}
