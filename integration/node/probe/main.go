// The program of the Pods of a test's node: static, so that it is an image by itself.
//
//	probe pause
//	probe watch --allowed NAME --denied NAME --closed ADDRESS:PORT --port PORT --every DURATION
//
// `pause` holds the namespaces of a Pod. `watch` asks, connects and prints what became of it, a line of JSON for each attempt,
// until it is ended. The clock of its lines starts with the process, which nobody outside can be as early as.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

var begun = time.Now()

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	switch {
	case len(os.Args) == 2 && os.Args[1] == "pause":
	case len(os.Args) > 2 && os.Args[1] == "watch":
		go watch(os.Args[2:])
	default:
		fmt.Fprintln(os.Stderr, "usage: probe pause | probe watch FLAGS")
		os.Exit(2)
	}
	<-stop
}

// attempt is one line of the output.
type attempt struct {
	Step    string `json:"step"`    // lookup, connect, denied, closed
	Outcome string `json:"outcome"` // done, refused, no-such-name, timeout, or an error
	Began   int64  `json:"began"`   // microseconds since the process began
	Took    int64  `json:"took"`    // microseconds
}

func watch(arguments []string) {
	flags := flag.NewFlagSet("watch", flag.ExitOnError)
	allowed := flags.String("allowed", "", "name that is to be reached")
	denied := flags.String("denied", "", "name that is not to be reached")
	closed := flags.String("closed", "", "address and port that no name opens")
	port := flags.String("port", "443", "port of both names")
	every := flags.Duration("every", 10*time.Millisecond, "pause between rounds")
	flags.Parse(arguments)
	out := json.NewEncoder(os.Stdout)
	for {
		// What is closed comes first: the first packet of a Pod is the one that gets through, if any does.
		if *closed != "" {
			out.Encode(try("closed", func() error { return connect(*closed) }))
		}
		if *allowed != "" {
			var address string
			out.Encode(try("lookup", func() (err error) { address, err = resolve(*allowed); return }))
			if address != "" {
				out.Encode(try("connect", func() error { return connect(net.JoinHostPort(address, *port)) }))
			}
		}
		if *denied != "" {
			out.Encode(try("denied", func() error {
				address, err := resolve(*denied)
				if err != nil {
					return err
				}
				return connect(net.JoinHostPort(address, *port))
			}))
		}
		time.Sleep(*every)
	}
}

func try(step string, work func() error) attempt {
	start := time.Now()
	err := work()
	took := time.Since(start)
	return attempt{step, outcome(err), start.Sub(begun).Microseconds(), took.Microseconds()}
}

func outcome(err error) string {
	var lookup *net.DNSError
	var wait net.Error
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return "no-such-name"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EACCES):
		return "refused"
	case errors.As(err, &wait) && wait.Timeout():
		return "timeout"
	default:
		return err.Error()
	}
}

// resolve asks once: a lookup that is lost is a timeout, and not an answer to the second try. The name ends in a dot, so that
// no search list applies.
func resolve(name string) (string, error) {
	context, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(context, "ip4", strings.TrimSuffix(name, ".")+".")
	if err != nil {
		return "", err
	}
	return addresses[0].Unmap().String(), nil
}

func connect(address string) error {
	connection, err := net.DialTimeout("tcp4", address, time.Second)
	if err != nil {
		return err
	}
	return connection.Close()
}
