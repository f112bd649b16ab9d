package sctp

import (
	"encoding/binary"
	"hash/crc32"
)

// What is common to all packets (RFC 9260, section 3.1) and the header of the first chunk.
const (
	commonHeader = 12
	chunkHeader  = 4
	chunkInit    = 1
)

// pionPort is the port of both ends of an association, as pion/sctp has it: it is made to run inside DTLS.
const pionPort = 5000

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// packet is what follows the header of IP.
type packet []byte

func (p packet) source() uint16      { return binary.BigEndian.Uint16(p[0:]) }
func (p packet) destination() uint16 { return binary.BigEndian.Uint16(p[2:]) }
func (p packet) isInit() bool        { return p[commonHeader] == chunkInit }

// isValid says whether it is long enough for the fields above, and its checksum is right.
func (p packet) isValid() bool {
	return len(p) >= commonHeader+chunkHeader && binary.LittleEndian.Uint32(p[8:]) == p.checksum()
}

// between returns the same packet between other ports.
func (p packet) between(source, destination uint16) packet {
	other := append(packet(nil), p...)
	binary.BigEndian.PutUint16(other[0:], source)
	binary.BigEndian.PutUint16(other[2:], destination)
	binary.LittleEndian.PutUint32(other[8:], other.checksum())
	return other
}

// checksum is computed as if its own field were zero.
func (p packet) checksum() uint32 {
	sum := crc32.Update(0, castagnoli, p[:8])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	return crc32.Update(sum, castagnoli, p[commonHeader:])
}
