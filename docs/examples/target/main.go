// Command target is something to watch and someone to tell, for trying probemesh out: a web server on 127.0.0.1:8080 whose health can be switched with
// the Enter key, and a webhook on 127.0.0.1:9000 that prints what it is told.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

func main() {
	var down atomic.Bool
	target := http.NewServeMux()
	target.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			http.Error(w, `{"ok": false}`, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, `{"ok": true}`)
	})
	hook := http.NewServeMux()
	hook.HandleFunc("/hook", func(_ http.ResponseWriter, r *http.Request) {
		var n struct{ Transition, Summary string }
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
			fmt.Println("a webhook came that is not JSON:", err)
			return
		}
		fmt.Printf("%s  webhook  %-8s  %s\n", time.Now().Format(time.TimeOnly), n.Transition, n.Summary)
	})
	go serve("127.0.0.1:9000", hook)
	go serve("127.0.0.1:8080", target)
	fmt.Println("target at http://127.0.0.1:8080/health, webhook at http://127.0.0.1:9000/hook; Enter breaks and mends the target, Ctrl-C ends")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		down.Store(!down.Load())
		state := "answers 200 again"
		if down.Load() {
			state = "answers 503 now"
		}
		fmt.Printf("%s  target   %s\n", time.Now().Format(time.TimeOnly), state)
	}
	select {}
}

func serve(address string, h http.Handler) {
	s := &http.Server{Addr: address, Handler: h, ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(s.ListenAndServe())
}
