package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// clientKeepalive is the lowest that grpc-go allows. It ends a watch whose server has vanished without a word within about 20 s.
	clientKeepalive = 10 * time.Second
	// connectTimeout is how long one attempt to connect may take.
	connectTimeout = 5 * time.Second
)

// DialOptions is how a client connects. The zero value speaks plain text.
type DialOptions struct {
	// TLS, if set, is what the client speaks. If nil, plain text. See [ClientTLS].
	TLS *tls.Config
	// Dialer, if set, replaces the network: a bufconn listener's, for example. The address is then handed to it as it is.
	Dialer func(ctx context.Context, address string) (net.Conn, error)
	// MessageBytesMax is the largest answer that is taken, in bytes. If 0, [MessageBytesMax].
	MessageBytesMax int
	// UserAgent is put before grpc-go's own.
	UserAgent string
	// Options are put behind those of this package.
	Options []grpc.DialOption
}

// Dial makes a client of the server at address (`host:port`). It does not connect: the first call does, and the connection mends itself with
// backoff from 100 ms to 5 s. It fails only for an address that cannot be one. The caller closes the connection.
func Dial(address string, o DialOptions) (*grpc.ClientConn, error) {
	if address == "" {
		return nil, errors.New("the address of the server is empty; give host:port, for example 127.0.0.1:7700")
	}
	options := []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(orDefault(o.MessageBytesMax, MessageBytesMax))),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: clientKeepalive, Timeout: keepaliveTimeout}),
	}
	if o.TLS != nil {
		options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(o.TLS)))
	} else {
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	if o.UserAgent != "" {
		options = append(options, grpc.WithUserAgent(o.UserAgent))
	}
	target := address
	if o.Dialer != nil {
		target = "passthrough:///" + address
		options = append(options, grpc.WithContextDialer(o.Dialer))
	} else if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("%q is not the address of a server (%w); give host:port, for example 127.0.0.1:7700", address, err)
	}
	conn, err := grpc.NewClient(target, append(options, o.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return conn, nil
}
