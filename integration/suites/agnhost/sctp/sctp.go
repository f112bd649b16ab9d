// Package sctp stands in for github.com/ishidawataru/sctp with what agnhost calls of it, on kernels that have no sockets for SCTP.
//
// Associations are those of github.com/pion/sctp, and their packets are real ones, protocol 132 of IPv4, sent and received through
// raw sockets: what filters and tracks SCTP on the way sees nothing unusual. A port that nobody listens on stays silent, where a
// kernel would send ABORT: a raw socket cannot know of the others.
package sctp

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"time"

	pion "github.com/pion/sctp"
)

// The time for the chunks that end an association. A peer that does not answer is left.
const shutdownTimeout = 500 * time.Millisecond

// SCTPAddr is an address and a port.
type SCTPAddr struct {
	IPAddrs []net.IPAddr
	Port    int
}

// Network is "sctp".
func (a *SCTPAddr) Network() string { return "sctp" }

func (a *SCTPAddr) String() string { return net.JoinHostPort(a.ip().String(), strconv.Itoa(a.Port)) }

func (a *SCTPAddr) ip() net.IP {
	if a == nil || len(a.IPAddrs) == 0 {
		return net.IPv4zero
	}
	return a.IPAddrs[0].IP
}

// ResolveSCTPAddr resolves "host:port". Without a host it is every address of this machine.
func ResolveSCTPAddr(_, address string) (*SCTPAddr, error) {
	resolved, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return nil, err
	}
	ip := resolved.IP
	if ip == nil {
		ip = net.IPv4zero
	}
	return &SCTPAddr{IPAddrs: []net.IPAddr{{IP: ip}}, Port: resolved.Port}, nil
}

// SCTPConn is an association, of which one stream is used.
type SCTPConn struct {
	*pion.Stream
	association *pion.Association
	link        *link
}

// DialSCTP begins an association with `remote`. As with a kernel's socket, only its owner limits the time that this may take.
func DialSCTP(_ string, _, remote *SCTPAddr) (*SCTPConn, error) {
	socket, err := openRaw(nil)
	if err != nil {
		return nil, err
	}
	// Two clients in one Pod take the same port once in 28,000 times.
	local := uint16(32768 + rand.IntN(28232))
	l := newLink(socket, ends{address: remote.ip(), remote: uint16(remote.Port), local: local}, func() { socket.Close() })
	go receive(socket, func(from net.IP, p packet) {
		if from.Equal(l.ends.address) && p.source() == l.ends.remote && p.destination() == l.ends.local {
			l.deliver(p)
		}
	})
	association, err := pion.ClientWithOptions(pion.WithNetConn(l))
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("association with %s: %w", remote, err)
	}
	return newConn(association, l)
}

func newConn(association *pion.Association, l *link) (*SCTPConn, error) {
	stream, err := association.OpenStream(0, pion.PayloadTypeWebRTCBinary)
	if err != nil {
		association.Close()
		l.Close()
		return nil, err
	}
	return &SCTPConn{Stream: stream, association: association, link: l}, nil
}

// SCTPRemoteAddr is who is at the other end.
func (c *SCTPConn) SCTPRemoteAddr(int) (*SCTPAddr, error) {
	return &SCTPAddr{IPAddrs: []net.IPAddr{{IP: c.link.ends.address}}, Port: int(c.link.ends.remote)}, nil
}

// Close ends the association. As close(2), it does not tell what the peer did.
func (c *SCTPConn) Close() error {
	limit, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	c.association.Shutdown(limit)
	c.association.Close()
	return c.link.Close()
}
