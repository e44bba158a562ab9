package grpc_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	ggrpc "google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// peer is a server that speaks HTTP/2 frame by frame.
type peer struct {
	net.Conn
	*http2.Framer
	stream uint32 // of the client's call
}

// accept reads what a client sends until its call is there, and answers its settings.
func accept(c net.Conn, settings ...http2.Setting) *peer {
	p := &peer{Conn: c, Framer: http2.NewFramer(c, c)}
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return nil
	}
	_ = p.WriteSettings(settings...)
	for {
		f, err := p.ReadFrame()
		if err != nil {
			return nil
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = p.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			p.stream = f.StreamID
		case *http2.DataFrame:
			if f.StreamEnded() || p.stream != 0 {
				return p
			}
		}
	}
}

// headers sends a list of headers.
func (p *peer) headers(end bool, pairs ...string) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: p.stream, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: end})
}

func (p *peer) begin() { p.headers(false, ":status", "200", "content-type", "application/grpc") }

// message is a message as gRPC frames it.
func message(compressed byte, size int, body []byte) []byte {
	b := []byte{compressed, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(b[1:], uint32(size))
	return append(b, body...)
}

// forever does it again and again until the connection is gone.
func forever(do func() error) {
	for do() == nil {
	}
}

// TestHostileServersEndWithinTimeAndMemory has a server for each way to cost a client much, and for each phase in which a connection may break.
func TestHostileServersEndWithinTimeAndMemory(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(net.Conn)
		class meshv1.Result_ErrorClass
		text  string
	}{
		"settings without end": {func(c net.Conn) {
			if p := accept(c); p != nil {
				forever(func() error { return p.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20}) })
			}
		}, 0, ""},
		"pings without end": {func(c net.Conn) {
			if p := accept(c); p != nil {
				forever(func() error { return p.WritePing(false, [8]byte{}) })
			}
		}, 0, ""},
		"window updates without end": {func(c net.Conn) {
			if p := accept(c); p != nil {
				forever(func() error { return p.WriteWindowUpdate(0, 1) })
			}
		}, 0, ""},
		"unknown frames without end": {func(c net.Conn) {
			if p := accept(c); p != nil {
				forever(func() error { return p.WriteRawFrame(99, 0, 0, make([]byte, 16<<10)) })
			}
		}, meshv1.Result_PROTOCOL, "too many bytes"},
		"empty data without end": {func(c net.Conn) {
			if p := accept(c); p != nil {
				p.begin()
				forever(func() error { return p.WriteData(p.stream, false, nil) })
			}
		}, meshv1.Result_PROTOCOL, "too many bytes"},
		"continuations without end": {func(c net.Conn) {
			if p := accept(c); p != nil {
				_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: p.stream})
				forever(func() error { return p.WriteContinuation(p.stream, false, make([]byte, 16)) })
			}
		}, 0, ""},
		"headers that are too long": {func(c net.Conn) {
			if p := accept(c); p != nil {
				pairs := []string{":status", "200", "content-type", "application/grpc"}
				for range 100 {
					pairs = append(pairs, "x-long", strings.Repeat("y", 1<<10))
				}
				p.headers(false, pairs...)
				probetest.Hang(c)
			}
		}, meshv1.Result_PROTOCOL, "header list"},
		"a message of 4 GiB": {func(c net.Conn) {
			if p := accept(c); p != nil {
				p.begin()
				_ = p.WriteData(p.stream, false, message(0, 1<<32-1, make([]byte, 100)))
				probetest.Hang(c)
			}
		}, meshv1.Result_PROTOCOL, "more than 65536 bytes"},
		"a compression nobody knows": {func(c net.Conn) {
			if p := accept(c); p != nil {
				p.headers(false, ":status", "200", "content-type", "application/grpc", "grpc-encoding", "xz")
				_ = p.WriteData(p.stream, false, message(1, 3, []byte("abc")))
				probetest.Hang(c)
			}
		}, meshv1.Result_PROTOCOL, ""},
		"no gzip at all": {func(c net.Conn) {
			if p := accept(c); p != nil {
				p.headers(false, ":status", "200", "content-type", "application/grpc", "grpc-encoding", "gzip")
				_ = p.WriteData(p.stream, false, message(1, 3, []byte("abc")))
				p.headers(true, "grpc-status", "0")
				probetest.Hang(c)
			}
		}, meshv1.Result_PROTOCOL, "decompress"},
		"slow bytes": {func(c net.Conn) {
			if p := accept(c); p != nil {
				p.begin()
				for _, b := range message(0, 60_000, make([]byte, 60_000)) {
					if p.WriteData(p.stream, false, []byte{b}) != nil {
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
			}
		}, meshv1.Result_TIMEOUT, ""},
		"a status and no end": {func(c net.Conn) {
			if p := accept(c); p != nil {
				p.begin()
				_ = p.WriteData(p.stream, false, message(0, 2, []byte{8, 1}))
				probetest.Hang(c)
			}
		}, meshv1.Result_TIMEOUT, ""},
		"goaway before the call":       {goAway(0, false), meshv1.Result_CONNECTION_RESET, ""},
		"goaway and close":             {goAway(0, true), meshv1.Result_CONNECTION_RESET, ""},
		"goaway: enhance your calm":    {goAway(http2.ErrCodeEnhanceYourCalm, true), meshv1.Result_CONNECTION_RESET, ""},
		"reset of the call":            {resetCall(false), meshv1.Result_CONNECTION_RESET, "RST_STREAM"},
		"reset of the call after head": {resetCall(true), meshv1.Result_CONNECTION_RESET, "RST_STREAM"},
		"closes at once":               {func(net.Conn) {}, meshv1.Result_CONNECTION_RESET, ""},
		"TCP reset at once":            {probetest.Reset, meshv1.Result_CONNECTION_RESET, ""},
		"closes after the settings":    {func(c net.Conn) { _ = http2.NewFramer(c, nil).WriteSettings(); time.Sleep(50 * time.Millisecond) }, meshv1.Result_CONNECTION_RESET, ""},
		"TCP reset after the call":     {func(c net.Conn) { accept(c); probetest.Reset(c) }, meshv1.Result_CONNECTION_RESET, ""},
		"closes after the head":        {ends(func(c net.Conn) {}), meshv1.Result_CONNECTION_RESET, ""},
		"TCP reset after the head":     {ends(probetest.Reset), meshv1.Result_CONNECTION_RESET, ""},
		"half-closes after the head":   {ends(func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite(); probetest.Hang(c) }), meshv1.Result_CONNECTION_RESET, ""},
		"half-closes at once":          {func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite(); probetest.Hang(c) }, meshv1.Result_CONNECTION_RESET, ""},
		"no streams allowed":           {func(c net.Conn) { accept(c, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0}) }, meshv1.Result_TIMEOUT, ""},
		"no window":                    {func(c net.Conn) { accept(c, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}) }, meshv1.Result_TIMEOUT, ""},
		"noise": {func(c net.Conn) {
			forever(func() error { _, err := c.Write(bytes.Repeat([]byte("noise"), 1000)); return err })
		}, meshv1.Result_PROTOCOL, ""},
		"a bad status":                  {trailer("grpc-status", "none"), meshv1.Result_PROTOCOL, ""},
		"a huge status":                 {trailer("grpc-status", "99999999999"), meshv1.Result_PROTOCOL, ""},
		"bad binary metadata":           {trailer("grpc-status", "0", "x-bin", "!!"), meshv1.Result_PROTOCOL, ""},
		"bad details":                   {trailer("grpc-status", "7", "grpc-status-details-bin", "////"), meshv1.Result_EXPECTATION, ""},
		"HTTP instead of gRPC":          {html, meshv1.Result_PROTOCOL, "unexpected HTTP status code"},
		"a status of its own invention": {trailer("grpc-status", "77"), meshv1.Result_EXPECTATION, "CODE_77"},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r := within(t, patience(probetest.Want{Class: meshv1.Result_TIMEOUT}), "grpc://"+probetest.Listen(t, c.serve), nil)
			runtime.ReadMemStats(&after)
			if r.Outcome != meshv1.Result_FAIL || c.class != 0 && r.ErrorClass != c.class || !strings.Contains(r.Error, c.text) {
				t.Errorf("got %v %v in %v: %s", r.Outcome, r.ErrorClass, r.FailedPhase, r.Error)
			}
			t.Logf("%v in %v after %s: %s", r.ErrorClass, r.FailedPhase, r.Duration.AsDuration(), r.Error)
			if used := after.TotalAlloc - before.TotalAlloc; used > 32<<20 {
				t.Errorf("%d MiB were allocated", used>>20)
			}
		})
	}
}

func goAway(code http2.ErrCode, hangUp bool) func(net.Conn) {
	return func(c net.Conn) {
		if p := accept(c); p != nil {
			_ = p.WriteGoAway(0, code, []byte("go\xff away"))
			if !hangUp {
				probetest.Hang(c)
			}
		}
	}
}

func resetCall(head bool) func(net.Conn) {
	return func(c net.Conn) {
		if p := accept(c); p != nil {
			if head {
				p.begin()
			}
			_ = p.WriteRSTStream(p.stream, http2.ErrCodeInternal)
			probetest.Hang(c)
		}
	}
}

func ends(how func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		if p := accept(c); p != nil {
			p.begin()
			how(c)
		}
	}
}

func trailer(pairs ...string) func(net.Conn) {
	return func(c net.Conn) {
		if p := accept(c); p != nil {
			p.begin()
			_ = p.WriteData(p.stream, false, message(0, 2, []byte{8, 2}))
			p.headers(true, pairs...)
			probetest.Hang(c)
		}
	}
}

func html(c net.Conn) {
	if p := accept(c); p != nil {
		p.headers(false, ":status", "502", "content-type", "text/html")
		_ = p.WriteData(p.stream, true, []byte("<h1>Bad Gateway"))
		probetest.Hang(c)
	}
}

func TestAServerThatEndsEveryConnectionIsConnectedToOnce(t *testing.T) {
	var connections atomic.Int32
	address := probetest.Listen(t, func(c net.Conn) {
		connections.Add(1)
		goAway(0, true)(c)
	})
	probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_PROCESSING, "").Match(t, run(t, "grpc://"+address, nil))
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// mirror is reflection that answers as the function says.
type mirror struct {
	reflectionpb.UnimplementedServerReflectionServer
	answer func(n int, r *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse
}

func (m *mirror) ServerReflectionInfo(s reflectionpb.ServerReflection_ServerReflectionInfoServer) error {
	for n := 0; ; n++ {
		r, err := s.Recv()
		if err != nil {
			return nil
		}
		if a := m.answer(n, r); a == nil {
			<-s.Context().Done()
		} else if err := s.Send(a); err != nil {
			return err
		}
	}
}

func files(list ...*descriptorpb.FileDescriptorProto) *reflectionpb.ServerReflectionResponse {
	f := &reflectionpb.FileDescriptorResponse{}
	for _, one := range list {
		b, _ := proto.Marshal(one)
		f.FileDescriptorProto = append(f.FileDescriptorProto, b)
	}
	return &reflectionpb.ServerReflectionResponse{MessageResponse: &reflectionpb.ServerReflectionResponse_FileDescriptorResponse{FileDescriptorResponse: f}}
}

// next is a file that imports another one, without end.
func next(n int, padding int) *descriptorpb.FileDescriptorProto {
	return &descriptorpb.FileDescriptorProto{Name: proto.String(strings.Repeat("f", n+1)), Dependency: []string{strings.Repeat("f", n+2)}, Package: proto.String(strings.Repeat("p", padding+1))}
}

func TestReflectionThatIsHostileIsBounded(t *testing.T) {
	deep := &descriptorpb.DescriptorProto{Name: proto.String("M")}
	for range 150 {
		deep = &descriptorpb.DescriptorProto{Name: proto.String("M"), NestedType: []*descriptorpb.DescriptorProto{deep}}
	}
	test := protodesc.ToFileDescriptorProto(testpb.File_grpc_testing_test_proto)
	cyclic := proto.CloneOf(test)
	cyclic.Dependency = append(cyclic.Dependency, cyclic.GetName())
	for name, c := range map[string]struct {
		answer func(n int, r *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse
		class  meshv1.Result_ErrorClass
		text   string
	}{
		"never answers": {func(int, *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse { return nil }, meshv1.Result_TIMEOUT, ""},
		"imports for ever": {func(n int, _ *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
			return files(next(n, 0))
		}, meshv1.Result_PROTOCOL, "more than 500 files"},
		"large files": {func(n int, _ *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
			return files(next(n, 200<<10))
		}, meshv1.Result_PROTOCOL,
			"more than 1048576 bytes of descriptors"},
		"one huge file": {func(n int, _ *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
			return files(next(n, 2<<20))
		}, meshv1.Result_PROTOCOL, ""},
		"many files at once": {func(int, *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
			var list []*descriptorpb.FileDescriptorProto
			for n := range 600 {
				list = append(list, &descriptorpb.FileDescriptorProto{Name: proto.String(strings.Repeat("g", n+1))})
			}
			return files(list...)
		}, meshv1.Result_PROTOCOL, "more than 500 files"},
		"other files than asked for": {func(int, *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
			return files(test)
		}, meshv1.Result_PROTOCOL, "lack message"},
		"deep nesting": {func(int, *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
			return files(&descriptorpb.FileDescriptorProto{Name: proto.String("deep"), MessageType: []*descriptorpb.DescriptorProto{deep}})
		}, meshv1.Result_PROTOCOL, ""},
		"an import of itself": {func(int, *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
			return files(cyclic)
		}, meshv1.Result_PROTOCOL, "import cycle"},
		"another answer": {func(int, *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
			return &reflectionpb.ServerReflectionResponse{MessageResponse: &reflectionpb.ServerReflectionResponse_ListServicesResponse{}}
		}, meshv1.Result_PROTOCOL, "no service grpc.testing.TestService"},
	} {
		t.Run(name, func(t *testing.T) {
			address := start(t, func(s *ggrpc.Server) { reflectionpb.RegisterServerReflectionServer(s, &mirror{answer: c.answer}) })
			w := probetest.Fail(c.class, meshv1.Result_PROCESSING, c.text)
			w.Match(t, within(t, patience(w), "grpc://"+address, calling(unary, "", nil)))
		})
	}
}

func TestAnAnswerThatIsNotWhatItsDescriptorsSayIsAFailure(t *testing.T) {
	address := probetest.Listen(t, func(c net.Conn) {
		if p := accept(c); p != nil {
			p.begin()
			_ = p.WriteData(p.stream, false, message(0, 2, []byte{0x0a, 0x7f})) // a submessage that is longer than the message
			p.headers(true, "grpc-status", "0")
			probetest.Hang(c)
		}
	})
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{protodesc.ToFileDescriptorProto(testpb.File_grpc_testing_messages_proto),
		protodesc.ToFileDescriptorProto(testpb.File_grpc_testing_empty_proto), protodesc.ToFileDescriptorProto(testpb.File_grpc_testing_test_proto)}}
	encoded, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, "grpc://"+address, &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: unary, DescriptorSet: encoded}})
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "cannot be read as a grpc.testing.SimpleResponse").Match(t, r)
}
