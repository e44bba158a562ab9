package spec_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// faultsOf are the faults of a check of the options, one a line.
func faultsOf(c *meshv1.Check) string {
	c.Name = "checks/under-test"
	var b strings.Builder
	for _, v := range spec.ValidateCheck(c, "") {
		b.WriteString(v.String() + "\n")
	}
	return b.String()
}

// setOf is an encoded set of one file.
func setOf(t testing.TB, file *descriptorpb.FileDescriptorProto) []byte {
	t.Helper()
	b, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// shop is a file with a service.
func shop() *descriptorpb.FileDescriptorProto {
	field := func(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type, of string) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{Name: proto.String(name), Number: proto.Int32(number), Type: kind.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
		if of != "" {
			f.TypeName = proto.String(of)
		}
		return f
	}
	return &descriptorpb.FileDescriptorProto{
		Name: proto.String("shop/v1/cart.proto"), Package: proto.String("shop.v1"), Syntax: proto.String("proto3"), Dependency: []string{"google/protobuf/timestamp.proto"},
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("Get"), Field: []*descriptorpb.FieldDescriptorProto{field("id", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING, ""),
				field("as_of", 2, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, ".google.protobuf.Timestamp")}},
			{Name: proto.String("Cart"), Field: []*descriptorpb.FieldDescriptorProto{field("id", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING, ""),
				field("next", 2, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, ".shop.v1.Cart")}},
		},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("Carts"), Method: []*descriptorpb.MethodDescriptorProto{
			{Name: proto.String("Get"), InputType: proto.String(".shop.v1.Get"), OutputType: proto.String(".shop.v1.Cart")},
			{Name: proto.String("Put"), InputType: proto.String(".shop.v1.Cart"), OutputType: proto.String(".shop.v1.Cart"), ClientStreaming: proto.Bool(true)},
		}}},
	}
}

func TestCallsThatCannotWorkAreRefusedWithASentence(t *testing.T) {
	set := setOf(t, shop())
	message, err := structpb.NewStruct(map[string]any{"id": "7", "as_of": "2026-01-02T03:04:05Z"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		uri     string
		options *meshv1.GrpcProbe
		want    string // empty: valid
	}{
		{"grpc://a.example:1", &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: "shop.v1.Carts/Get"}}, ""},
		{"grpc://a.example:1", &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: "/shop.v1.Carts/Get", Request: `{"id": "7"}`, DescriptorSet: set}, Statuses: []string{"OK", "NOT_FOUND"}}, ""},
		{"grpc://a.example:1", &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: "shop.v1.Carts/Get", Message: message, DescriptorSet: set}}, ""},
		{"grpc://a.example:1", &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{}}, "grpc.call.method: is missing"},
		{"grpc://a.example:1", &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: "Get"}}, `"Get" is not a method`},
		{"grpc://a.example:1", &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: "a.B/C", Request: "{"}}, "grpc.call.request: is not JSON"},
		{"grpc://a.example:1", &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: "a.B/C", Request: "{}", Message: message}}, "together with request"},
		{"grpc://a.example:1", &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: "a.B/C", DescriptorSet: []byte("\xff\xff")}}, "is not an encoded google.protobuf.FileDescriptorSet"},
		{"grpc://a.example:1", &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: "a.B/C", DescriptorSet: set}}, "no service a.B; there is shop.v1.Carts"},
		{"grpc://a.example:1", &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: "shop.v1.Carts/Del", DescriptorSet: set}}, "has no method Del; it has Get, Put"},
		{"grpc://a.example:1", &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: "shop.v1.Carts/Put", DescriptorSet: set}}, "takes a stream of requests"},
		{"grpc://a.example:1", &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: "shop.v1.Carts/Get", Request: `{"ID": 7}`, DescriptorSet: set}}, `the request is not a shop.v1.Get: (line 1:2): unknown field "ID"`},
		{"grpc://a.example:1/svc", &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: "a.B/C"}}, "does not go with the service svc"},
		{"grpc://a.example:1", &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: "a.B/C"}, Watch: true}, "remove one of them"},
		{"grpc://a.example:1", &meshv1.GrpcProbe{Statuses: []string{"OK", "FORBIDDEN", "OK"}}, `"FORBIDDEN" is no status code of gRPC`},
		{"grpc://a.example:1", &meshv1.GrpcProbe{Statuses: []string{"OK", "OK"}}, "grpc.statuses[1]: OK is given twice"},
		{"grpc://a.example:1", &meshv1.GrpcProbe{MessageLimit: 2 << 20}, "grpc.message_limit: 2097152 is not 1 to 1048576"},
		{"grpc://a.example:1", &meshv1.GrpcProbe{Compression: 9}, "grpc.compression: 9 is not known"},
	} {
		got := faultsOf(&meshv1.Check{Uri: c.uri, Grpc: c.options})
		if c.want == "" && got != "" || !strings.Contains(strings.ReplaceAll(got, "\u00a0", " "), c.want) {
			t.Errorf("%v: got %q, want %q", c.options, got, c.want)
		}
	}
}

func TestDescriptorsOfStrangersAreRefusedWhenTheyAreIncompleteOrPretendToBeWellKnown(t *testing.T) {
	lacking := shop()
	lacking.MessageType[1].Field[1].TypeName = proto.String(".other.Cart")
	lacking.Dependency = append(lacking.Dependency, "other.proto")
	pretending := shop()
	pretending.Package = proto.String("google.protobuf")
	cyclic := shop()
	cyclic.Dependency = append(cyclic.Dependency, cyclic.GetName())
	for want, file := range map[string]*descriptorpb.FileDescriptorProto{
		"the descriptors lack message other.Cart": lacking,
		"adds to package google.protobuf":         pretending,
		"import cycle":                            cyclic,
	} {
		_, err := spec.FindGRPCMethod(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}}, "shop.v1.Carts/Get")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	unused := shop()
	unused.Dependency = append(unused.Dependency, "validate/validate.proto")
	if _, err := spec.FindGRPCMethod(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{unused}}, "shop.v1.Carts/Get"); err != nil {
		t.Errorf("an import that the method does not need: %v", err)
	}
}

func TestDescriptorsThatCostTooMuchAreRefusedSoon(t *testing.T) {
	set := &descriptorpb.FileDescriptorSet{}
	for i := range 400 {
		f := &descriptorpb.FileDescriptorProto{Name: proto.String(fmt.Sprintf("f%d", i)), Syntax: proto.String("proto3")}
		for _, d := range []int{i - 1, i - 2} {
			if d >= 0 {
				f.PublicDependency = append(f.PublicDependency, int32(len(f.Dependency)))
				f.Dependency = append(f.Dependency, fmt.Sprintf("f%d", d))
			}
		}
		set.File = append(set.File, f)
	}
	if _, err := spec.FindGRPCMethod(set, "shop.v1.Carts/Get"); err == nil || !strings.Contains(err.Error(), "imports to follow") {
		t.Errorf("got %v", err)
	}
	// A mebibyte of messages, each of which needs the next, is read in a moment.
	long := shop()
	long.MessageType[1].Field[1].TypeName = proto.String(".shop.v1.M0")
	for i := range 20_000 {
		long.MessageType = append(long.MessageType, &descriptorpb.DescriptorProto{Name: proto.String(fmt.Sprintf("M%d", i)), Field: []*descriptorpb.FieldDescriptorProto{{Name: proto.String("n"),
			Number: proto.Int32(1), Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			TypeName: proto.String(fmt.Sprintf(".shop.v1.M%d", (i+1)%20_000))}}})
	}
	begin := time.Now()
	if _, err := spec.FindGRPCMethod(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{long}}, "shop.v1.Carts/Get"); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %s", took)
	} else {
		t.Logf("%d bytes took %s", proto.Size(long), took)
	}
}

func TestICMPOptionsMustGoTogether(t *testing.T) {
	ms := func(n int) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Millisecond) }
	for _, c := range []struct {
		uri     string
		options *meshv1.IcmpProbe
		want    string
	}{
		{"icmp://192.0.2.1", &meshv1.IcmpProbe{Count: 100, PayloadSize: proto.Int32(10_000), Interval: ms(50), ReplyWithin: ms(1000), MaxLoss: proto.Float64(0), MaxRttAvg: ms(10),
			MaxRttMax: ms(50), MaxRttStddev: ms(5), MaxJitter: ms(5), HopLimit: 255, SourceAddress: "192.0.2.9", DontFragment: true}, ""},
		{"icmp://192.0.2.1", &meshv1.IcmpProbe{Count: 101}, "icmp.count: 101 is not 1 to 100"},
		{"icmp://192.0.2.1", &meshv1.IcmpProbe{Count: 100, PayloadSize: proto.Int32(65_000)}, "are more than 1 MiB"},
		{"icmp://192.0.2.1", &meshv1.IcmpProbe{Count: 11, Interval: ms(1000)}, "11 requests 1s apart take 10s, which is not shorter than the timeout of 10s"},
		{"icmp://192.0.2.1", &meshv1.IcmpProbe{Interval: ms(1)}, "icmp.interval: 1ms is shorter than 10ms"},
		{"icmp://192.0.2.1", &meshv1.IcmpProbe{ReplyWithin: ms(11_000)}, "longer than the timeout of 10s"},
		{"icmp://192.0.2.1", &meshv1.IcmpProbe{MaxRttAvg: ms(11_000)}, "so it bounds nothing"},
		{"icmp://192.0.2.1", &meshv1.IcmpProbe{MaxLoss: proto.Float64(20)}, "it is a share, so write 0.2 for 20 %"},
		{"icmp://192.0.2.1", &meshv1.IcmpProbe{Count: 1, MaxJitter: ms(5)}, "needs two round trips at least"},
		{"icmp://192.0.2.1", &meshv1.IcmpProbe{SourceAddress: "2001:db8::1"}, "not of the IP family of 192.0.2.1"},
		{"icmp://a.example", &meshv1.IcmpProbe{SourceAddress: "2001:db8::1", IpFamily: meshv1.IpFamily_IPV4}, "does not go with ip_family IPV4"},
		{"icmp://a.example", &meshv1.IcmpProbe{SourceAddress: "eth0"}, `"eth0" is not an IP address`},
		{"icmp://a.example", &meshv1.IcmpProbe{SourceAddress: "0.0.0.0"}, "is no address to send from"},
		{"icmp://a.example", &meshv1.IcmpProbe{HopLimit: 256}, "icmp.hop_limit: 256 is not 1 to 255"},
	} {
		got := faultsOf(&meshv1.Check{Uri: c.uri, Icmp: c.options})
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%v: got %q, want %q", c.options, got, c.want)
		}
	}
}

func FuzzFindGRPCMethod(f *testing.F) {
	f.Add(setOf(f, shop()), "shop.v1.Carts/Get", `{"id": "7"}`)
	for _, d := range []protoreflect.FileDescriptor{meshv1.File_probemesh_v1_icmp_probe_proto, descriptorpb.File_google_protobuf_descriptor_proto} {
		f.Add(setOf(f, protodesc.ToFileDescriptorProto(d)), "a.B/C", "")
	}
	f.Fuzz(func(t *testing.T, encoded []byte, method, request string) {
		set, err := spec.ParseDescriptorSet(encoded)
		if err != nil {
			return
		}
		if m, err := spec.FindGRPCMethod(set, method); err == nil {
			_, _ = m.Request(&meshv1.GrpcCall{Request: request})
		}
	})
}
