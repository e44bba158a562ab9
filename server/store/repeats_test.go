package store

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

func TestWhatEtcdRepeatsForHoursIsWrittenRarelyAndCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := ZapLogger(slog.New(slog.NewTextHandler(&out, nil))).With(zap.String("local-member-id", "1"))
		for range 6 * 900 { // 6 hours, every 4 s
			log.Warn("failed to get version", zap.String("remote-member-id", "2"))
			time.Sleep(4 * time.Second)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) < 8 || len(lines) > 13 { // after 1, 3, 7, 15, 31 and 63 minutes, then hourly
			t.Errorf("%d lines, want some twelve:\n%s", len(lines), out.String())
		}
		if !strings.Contains(lines[0], "fields.local-member-id=1 fields.remote-member-id=2") || strings.Contains(lines[0], "left_out") {
			t.Errorf("the first line is %s", lines[0])
		}
		if !strings.Contains(lines[1], "left_out=14") {
			t.Errorf("the second line is %s; it comes after a minute and counts what was left out", lines[1])
		}
	})
}

func TestTheSameOfAnotherMemberOrAfterALongQuietIsWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := ZapLogger(slog.New(slog.NewTextHandler(&out, nil)))
		for range 3 {
			log.Warn("peer became inactive", zap.String("peer-id", "2"))
			log.Warn("peer became inactive", zap.String("peer-id", "3"))
			log.Error("something else")
			log.Error("something else")
			time.Sleep(10 * time.Minute)
		}
		if n := strings.Count(out.String(), "\n"); n != 9 {
			t.Errorf("%d lines, want 9: three a round\n%s", n, out.String())
		}
		if n := strings.Count(out.String(), "left_out=1"); n != 2 {
			t.Errorf("%d lines tell that one was left out, want 2\n%s", n, out.String())
		}
	})
}
