package notify

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Pauses between attempts, as receiver.proto documents them.
const (
	// minPause is the shortest pause after a failure.
	minPause = time.Second
	// maxPause bounds the random pause, and is the pause after an answer that only a person can change.
	maxPause = 2 * time.Minute
	// maxRetryAfter bounds what a receiver may ask for.
	maxRetryAfter = 10 * time.Minute
	// downAfter is how many failures in a row make a receiver count as down.
	downAfter = 8
	// downPause bounds the pause between attempts on a receiver that is down.
	downPause = 10 * time.Second
)

// outcome is how an attempt ended. It is the label `outcome` of the metric.
type outcome string

const (
	// delivered is an answer of 2xx.
	delivered outcome = "delivered"
	// unavailable is 408, 425, 429 or 5xx.
	unavailable outcome = "unavailable"
	// refused is any other answer, or a receiver to which nothing can be sent as it stands: somebody must mend something.
	refused outcome = "refused"
	// timeout is no answer in time.
	timeout outcome = "timeout"
	// network is any other failure to get an answer.
	network outcome = "network"
	// aborted is an attempt that was cut off because the reign ended: nothing is known of it.
	aborted outcome = "aborted"
)

// passing tells whether the failure is expected to pass by itself.
func (o outcome) passing() bool { return o == unavailable || o == timeout || o == network }

// classify is the outcome of an answer with an HTTP status.
func classify(status int) outcome {
	switch {
	case status >= 200 && status <= 299:
		return delivered
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests, status >= 500:
		return unavailable
	}
	return refused
}

// retryAfter reads a Retry-After header: seconds, or an HTTP date. It is 0 when there is none or it cannot be read, else 1s to 10m.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		s, err := strconv.Atoi(value)
		if err != nil || s > int(maxRetryAfter/time.Second) { // so many digits that they do not fit
			return maxRetryAfter
		}
		return max(time.Duration(s)*time.Second, minPause)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), minPause), maxRetryAfter)
}

// pause is how long to wait after the n-th failure of an entry, n from 1.
func pause(o outcome, after time.Duration, n int, chance *rand.Rand) time.Duration {
	switch {
	case !o.passing():
		return maxPause
	case after > 0:
		return after
	}
	return jitter(maxPause, n, chance)
}

// jitter is exponential backoff with full jitter: anything between minPause and a bound that doubles with n, up to most.
func jitter(most time.Duration, n int, chance *rand.Rand) time.Duration {
	bound := most
	if n < 20 {
		bound = min(most, minPause<<n)
	}
	return minPause + time.Duration(chance.Int64N(int64(bound-minPause)+1))
}
