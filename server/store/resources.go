package store

import (
	"context"
	"strconv"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// revisionOf is the mod revision in an etag that this package made.
func revisionOf(etag string) int64 {
	n, err := strconv.ParseInt(etag, 10, 64)
	if err != nil {
		return -1 // equal to no mod revision
	}
	return n
}

// GetCheck reads a check, with etag and revision filled in. Errors: NOT_FOUND, STORE_UNAVAILABLE.
func (s *Store) GetCheck(ctx context.Context, name string) (*meshv1.Check, error) {
	return s.checks().get(ctx, name)
}

// ListChecks reads at most limit checks (0: all) whose names sort above after (empty: from the first), by name, all as they were at the
// returned etcd revision.
func (s *Store) ListChecks(ctx context.Context, after string, limit int) ([]*meshv1.Check, int64, error) {
	return s.checks().list(ctx, after, limit)
}

// CreateCheck writes a check that does not exist yet and returns it as stored. Errors: ALREADY_EXISTS.
func (s *Store) CreateCheck(ctx context.Context, c *meshv1.Check) (*meshv1.Check, error) {
	return s.checks().create(ctx, c)
}

// UpdateCheck replaces a check; with an etag, only if it still has it. Its create time stays. Errors: NOT_FOUND, ETAG_MISMATCH.
func (s *Store) UpdateCheck(ctx context.Context, c *meshv1.Check, etag string) (*meshv1.Check, error) {
	return s.checks().update(ctx, c, etag)
}

// DeleteCheck deletes a check; with an etag, only if it still has it. Errors: NOT_FOUND, ETAG_MISMATCH.
func (s *Store) DeleteCheck(ctx context.Context, name, etag string) error {
	return s.checks().delete(ctx, name, etag)
}

// GetReceiver reads a receiver, with etag filled in; what was owed to it and sent is not the store's to know. Errors: NOT_FOUND.
func (s *Store) GetReceiver(ctx context.Context, name string) (*meshv1.Receiver, error) {
	return s.receivers().get(ctx, name)
}

// ListReceivers is as ListChecks.
func (s *Store) ListReceivers(ctx context.Context, after string, limit int) ([]*meshv1.Receiver, int64, error) {
	return s.receivers().list(ctx, after, limit)
}

// CreateReceiver is as CreateCheck.
func (s *Store) CreateReceiver(ctx context.Context, r *meshv1.Receiver) (*meshv1.Receiver, error) {
	return s.receivers().create(ctx, r)
}

// UpdateReceiver is as UpdateCheck.
func (s *Store) UpdateReceiver(ctx context.Context, r *meshv1.Receiver, etag string) (*meshv1.Receiver, error) {
	return s.receivers().update(ctx, r, etag)
}

// DeleteReceiver is as DeleteCheck. Whether a check still names the receiver is the caller's to know.
func (s *Store) DeleteReceiver(ctx context.Context, name, etag string) error {
	return s.receivers().delete(ctx, name, etag)
}
