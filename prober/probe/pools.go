package probe

import (
	"crypto/sha256"
	"crypto/x509"
	"runtime"
	"sync"
	"weak"

	"github.com/probemesh/probemesh/internal/spec"
)

// Pools shares the pools of trusted certificates between the checks that give the same PEM, which in most meshes is one private authority in every check. A pool that no check uses any more is
// forgotten. The system's certificates need none of this: crypto/x509 loads them once a process. Its methods may be called by several goroutines at once. A nil Pools shares nothing.
type Pools struct {
	mu    sync.Mutex
	pools map[[sha256.Size]byte]weak.Pointer[x509.CertPool]
}

// NewPools makes pools that are shared by whoever is given them.
func NewPools() *Pools {
	return &Pools{pools: make(map[[sha256.Size]byte]weak.Pointer[x509.CertPool])}
}

// get is the pool of the certificates in a PEM text, which must not be changed.
func (p *Pools) get(text string) (*x509.CertPool, error) {
	if p == nil {
		return spec.CertPool(text)
	}
	key := sha256.Sum256([]byte(text))
	p.mu.Lock()
	defer p.mu.Unlock()
	if pool := p.pools[key].Value(); pool != nil {
		return pool, nil
	}
	pool, err := spec.CertPool(text)
	if err != nil {
		return nil, err
	}
	p.pools[key] = weak.Make(pool)
	runtime.AddCleanup(pool, p.forget, key)
	return pool, nil
}

// forget drops a pool that is gone, unless it has been made anew since.
func (p *Pools) forget(key [sha256.Size]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pools[key].Value() == nil {
		delete(p.pools, key)
	}
}

// size is how many pools are remembered.
func (p *Pools) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pools)
}
