// Package clients holds tests with clients that are not ours: grpcurl, a program in Node.js, and whatever reads the files under deploy/ and the
// examples in docs/api.md. They talk to a real process, `probemesh up` on ports that it chose, so that what they prove is what a user meets.
//
// One mesh serves all tests of the package; TestMain ends it. The tests are skipped with -short, and each says what it needs when that is missing.
package clients
