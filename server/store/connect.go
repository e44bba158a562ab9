package store

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
)

// Connect makes a client of an external etcd cluster. It does not wait for a connection: calls fail while there is none. endpoints are
// `host:port`, `http://host:port` or `https://host:port`; tlsConfig is needed for https only. The caller closes the client.
//
// A member that has gone silent is noticed after 13s (a ping after 10s without traffic, 3s for its answer), and reconnecting is tried
// at least every 3s. options are put behind those of this package, for example a dialer.
func Connect(endpoints []string, tlsConfig *tls.Config, log *slog.Logger, options ...grpc.DialOption) (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		TLS:                  tlsConfig,
		Logger:               ZapLogger(log),
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		MaxCallRecvMsgSize:   64 << 20,
		DialOptions: append([]grpc.DialOption{
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: grpcbackoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second}, MinConnectTimeout: 3 * time.Second}),
		}, options...),
	})
	if err != nil {
		return nil, fmt.Errorf("cannot use the etcd endpoints %q: %w", endpoints, err)
	}
	return c, nil
}
