package sctp

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Packets that wait for an association; what comes when they are as many is lost, as on a wire.
const queueLength = 64

// ends are those of an association: the peer's address and port, and the own port.
type ends struct {
	address net.IP
	remote  uint16
	local   uint16
}

func (e ends) String() string { return fmt.Sprintf("%s %d %d", e.address, e.remote, e.local) }

// link carries the packets of one association between pion/sctp and a raw socket, and is the net.Conn of pion/sctp.
type link struct {
	socket   *net.IPConn
	ends     ends
	incoming chan packet
	closed   chan struct{}
	close    func()
}

// newLink makes one. `atEnd` is called once, when it is closed.
func newLink(socket *net.IPConn, ends ends, atEnd func()) *link {
	l := &link{socket: socket, ends: ends, incoming: make(chan packet, queueLength), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() {
		close(l.closed)
		atEnd()
	})
	return l
}

// deliver gives it a packet from the wire.
func (l *link) deliver(p packet) {
	select {
	case l.incoming <- p.between(pionPort, pionPort):
	default:
	}
}

func (l *link) Read(buffer []byte) (int, error) {
	select {
	case p := <-l.incoming:
		return copy(buffer, p), nil
	case <-l.closed:
		return 0, net.ErrClosed
	}
}

func (l *link) Write(p []byte) (int, error) {
	select {
	case <-l.closed:
		return 0, net.ErrClosed
	default:
	}
	// What the network refuses (ENETUNREACH, a rule that rejects) is lost as on a wire: SCTP sends it again.
	l.socket.WriteToIP(packet(p).between(l.ends.local, l.ends.remote), &net.IPAddr{IP: l.ends.address})
	return len(p), nil
}

func (l *link) Close() error {
	l.close()
	return nil
}

func (l *link) LocalAddr() net.Addr  { return l.socket.LocalAddr() }
func (l *link) RemoteAddr() net.Addr { return &net.IPAddr{IP: l.ends.address} }

// pion/sctp keeps its own time.
func (l *link) SetDeadline(time.Time) error      { return nil }
func (l *link) SetReadDeadline(time.Time) error  { return nil }
func (l *link) SetWriteDeadline(time.Time) error { return nil }

// openRaw opens a socket for every SCTP packet to an address of this machine, or to all of them.
func openRaw(local net.IP) (*net.IPConn, error) {
	return net.ListenIP("ip4:132", &net.IPAddr{IP: local})
}

// receive hands on every packet that is whole, until the socket is closed. An error that ICMP has brought is not the end.
func receive(socket *net.IPConn, handle func(from net.IP, p packet)) {
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := socket.ReadFromIP(buffer)
		switch {
		case err == nil && packet(buffer[:n]).isValid():
			handle(from.IP, packet(buffer[:n]))
		case errors.Is(err, net.ErrClosed):
			return
		}
	}
}
