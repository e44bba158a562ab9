package http_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	nethttp "net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// encoders are the codings that a check can expect, and raw deflate, which servers send in place of zlib.
func encoders() map[string]func(io.Writer) io.WriteCloser {
	return map[string]func(io.Writer) io.WriteCloser{
		"gzip":    func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
		"raw":     func(w io.Writer) io.WriteCloser { f, _ := flate.NewWriter(w, 5); return f },
		"br":      func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) },
		"zstd":    func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1)); return z },
	}
}

// encoded is a text in a coding.
func encoded(name, text string) []byte {
	var b bytes.Buffer
	w := encoders()[name](&b)
	_, _ = io.WriteString(w, text)
	w.Close()
	return b.Bytes()
}

// coding is the enum value of a name.
func coding(name string) meshv1.HttpProbe_Compression {
	if name == "raw" {
		name = "deflate"
	}
	return meshv1.HttpProbe_Compression(meshv1.HttpProbe_Compression_value[strings.ToUpper(name)])
}

// compressed serves body as if it were in the coding.
func compressed(t *testing.T, header string, body []byte) string {
	return serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Set("X-Offer", r.Header.Get("Accept-Encoding"))
		if header != "" {
			w.Header().Set("Content-Encoding", header)
		}
		_, _ = w.Write(body)
	}).URL
}

func TestEveryCodingIsOfferedExpectedAndUndone(t *testing.T) {
	const text = "hello, hello, hello, hello, hello, hello, hello"
	for name := range encoders() {
		t.Run(name, func(t *testing.T) {
			header := strings.Replace(name, "raw", "deflate", 1)
			url := compressed(t, header, encoded(name, text))
			for _, o := range []*meshv1.HttpProbe{{Compression: coding(name), Expect: []string{`response.headers["x-offer"] == "` + header + `"`}}, {Expect: []string{`response.headers["x-offer"] == "gzip"`}}} {
				o.Expect = append(o.Expect, fmt.Sprintf("response.body == %q", text), `response.headers["content-encoding"] == "`+header+`"`)
				r := run(t, url, o)
				probetest.OK().Match(t, r)
				if h := r.Http; h.BodyBytes != int64(len(text)) || h.EncodedBytes != int64(len(encoded(name, text))) || h.ContentEncoding != header {
					t.Errorf("got %v", h)
				}
			}
			raw := run(t, url, &meshv1.HttpProbe{Compression: meshv1.HttpProbe_RAW, Expect: []string{`response.headers["x-offer"] == ""`}})
			probetest.OK().Match(t, raw)
			if raw.Http.BodyBytes != int64(len(encoded(name, text))) {
				t.Errorf("raw: %v", raw.Http)
			}
			probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "the check expects it not to be").Match(t, run(t, url, &meshv1.HttpProbe{Compression: meshv1.HttpProbe_IDENTITY}))
			probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "not compressed; the check expects Content-Encoding "+header).Match(t,
				run(t, compressed(t, "", []byte(text)), &meshv1.HttpProbe{Compression: coding(name)}))
			probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "decompress the answer of 127.0.0.1").Match(t,
				run(t, compressed(t, header, encoded(name, text)[:len(encoded(name, text))-2]), &meshv1.HttpProbe{}))
			probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "decompress the answer of 127.0.0.1").Match(t,
				run(t, compressed(t, header, bytes.Repeat([]byte("\xff\x07"), 300)), &meshv1.HttpProbe{}))
			probetest.OK().Match(t, run(t, compressed(t, header, nil), &meshv1.HttpProbe{})) // as the answer to HEAD is
		})
	}
	twice := compressed(t, "gzip, br", encoded("br", string(encoded("gzip", text))))
	probetest.OK().Match(t, run(t, twice, &meshv1.HttpProbe{Expect: []string{fmt.Sprintf("response.body == %q", text)}}))
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "compressed with br; the check expects gzip").Match(t,
		run(t, compressed(t, "br", nil), &meshv1.HttpProbe{Compression: meshv1.HttpProbe_GZIP}))
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "too many").Match(t, run(t, compressed(t, "gzip,gzip,gzip,gzip", encoded("gzip", text)), nil))
}

func TestRequestsAreCompressed(t *testing.T) {
	text := strings.Repeat("hello ", 100)
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Encoding", r.Header.Get("Content-Encoding"))
		_, _ = w.Write(b)
	})
	for _, name := range []string{"gzip", "deflate", "br", "zstd"} {
		r := run(t, s.URL, &meshv1.HttpProbe{Body: text, RequestCompression: coding(name), Compression: coding(name), Expect: []string{fmt.Sprintf("response.body == %q", text)}})
		probetest.OK().Match(t, r)
		if r.Http.EncodedBytes >= int64(len(text))/2 {
			t.Errorf("%s: %d bytes were sent", name, r.Http.EncodedBytes)
		}
	}
}

// TestABombCostsNoMoreThanItsLimit serves answers that decompress to 64 MiB, or to nothing for ever, and watches the memory.
func TestABombCostsNoMoreThanItsLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("to make 64 MiB in each coding takes a minute under the race detector; run without -short")
	}
	zeros := strings.Repeat("\x00", 64<<20)
	for name := range encoders() {
		url := compressed(t, strings.Replace(name, "raw", "deflate", 1), encoded(name, zeros))
		for _, expect := range [][]string{nil, {`response.body.size() == 100000`}} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r := run(t, url, &meshv1.HttpProbe{BodyLimit: 100_000, Expect: expect})
			runtime.ReadMemStats(&after)
			probetest.OK().Match(t, r)
			if r.Http.BodyBytes != 100_000 {
				t.Errorf("%s: %d bytes", name, r.Http.BodyBytes)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 32<<20 {
				t.Errorf("%s: %d MiB were allocated", name, grown>>20)
			}
		}
	}
	empty := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) { // blocks of deflate without content, for ever
		w.Header().Set("Content-Encoding", "deflate")
		block := bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, 1000)
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}).URL
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "longer compressed than body_limit allows").Match(t, run(t, empty, &meshv1.HttpProbe{BodyLimit: 100_000}))
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "decompress").Match(t, run(t, // a zstd frame that asks for a window of 512 MiB
		compressed(t, "zstd", []byte("\x28\xb5\x2f\xfd\x00\x98\x01\x00\x00")), &meshv1.HttpProbe{}))
}
