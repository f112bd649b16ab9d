package sctp

import (
	"net"
	"sync"

	pion "github.com/pion/sctp"
)

// SCTPListener accepts associations at a port.
type SCTPListener struct {
	socket   *net.IPConn
	port     uint16
	accepted chan *SCTPConn
	closed   chan struct{}

	lock  sync.Mutex
	links map[string]*link // by who is at the other end
}

// ListenSCTP listens at a port of one address, or of all.
func ListenSCTP(_ string, local *SCTPAddr) (*SCTPListener, error) {
	socket, err := openRaw(local.ip())
	if err != nil {
		return nil, err
	}
	ln := &SCTPListener{
		socket:   socket,
		port:     uint16(local.Port),
		accepted: make(chan *SCTPConn),
		closed:   make(chan struct{}),
		links:    map[string]*link{},
	}
	go receive(socket, ln.route)
	return ln, nil
}

// AcceptSCTP waits for the next association.
func (ln *SCTPListener) AcceptSCTP() (*SCTPConn, error) {
	select {
	case conn := <-ln.accepted:
		return conn, nil
	case <-ln.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the listener, and its associations hear nothing more.
func (ln *SCTPListener) Close() error {
	close(ln.closed)
	return ln.socket.Close()
}

// route gives a packet to its association, which an INIT begins.
func (ln *SCTPListener) route(from net.IP, p packet) {
	if p.destination() != ln.port {
		return
	}
	peer := ends{address: from, remote: p.source(), local: ln.port}
	key := peer.String()
	ln.lock.Lock()
	l, known := ln.links[key]
	if !known && p.isInit() {
		l = newLink(ln.socket, peer, func() {
			ln.lock.Lock()
			delete(ln.links, key)
			ln.lock.Unlock()
		})
		ln.links[key] = l
		go ln.serve(l)
	}
	ln.lock.Unlock()
	if l != nil {
		l.deliver(p)
	}
}

func (ln *SCTPListener) serve(l *link) {
	association, err := pion.ServerWithOptions(pion.WithNetConn(l))
	if err != nil {
		l.Close()
		return
	}
	conn, err := newConn(association, l)
	if err != nil {
		return
	}
	select {
	case ln.accepted <- conn:
	case <-ln.closed:
		conn.Close()
	}
}
