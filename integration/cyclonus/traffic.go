package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
)

// serve answers on a container's port until the pod is closed.
func (p *podNetwork) serve(port v1.ContainerPort) error {
	address := net.JoinHostPort(p.address, strconv.Itoa(int(port.ContainerPort)))
	return p.enter(func() error {
		switch port.Protocol {
		case v1.ProtocolTCP:
			listener, err := net.Listen("tcp4", address)
			if err != nil {
				return err
			}
			p.servers = append(p.servers, listener)
			go acceptAll(listener)
			return nil
		case v1.ProtocolUDP:
			socket, err := net.ListenPacket("udp4", address)
			if err != nil {
				return err
			}
			p.servers = append(p.servers, socket)
			go echoAll(socket)
			return nil
		}
		return fmt.Errorf("no server for protocol %s", port.Protocol)
	})
}

func acceptAll(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		connection.Close()
	}
}

func echoAll(socket net.PacketConn) {
	buffer := make([]byte, 64)
	for {
		length, from, err := socket.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = socket.WriteTo(buffer[:length], from)
		}
	}
}

// connect is what `agnhost connect` does: nil where a connection is made, or a datagram answered.
func (p *podNetwork) connect(protocol, address string, timeout time.Duration) error {
	return p.enter(func() error {
		dialer := net.Dialer{Timeout: timeout}
		connection, err := dialer.Dial(protocol+"4", address)
		if err != nil {
			return err
		}
		defer connection.Close()
		if protocol == "tcp" {
			return nil
		}
		if err := connection.SetDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		if _, err := connection.Write([]byte("probe")); err != nil {
			return err
		}
		_, err = connection.Read(make([]byte, 64))
		return err
	})
}
