package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// A record is a CRC-32C and then fields in protobuf's wire format: a later version can add fields,
// and an earlier one skips them.
const (
	fieldID protowire.Number = iota + 1
	fieldType
	fieldLane
	fieldReceivedAt
	fieldMethod
	fieldPath
	fieldQuery
	fieldHeader
	fieldBody
	fieldTrace
	fieldName
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errChecksum = errors.New("its checksum does not match")

// encode writes a record under its sequence number, which its checksum covers.
func encode(seq uint64, r *Record) []byte {
	data := make([]byte, 4, 4+256+len(r.Request.Query)+len(r.Request.Body))
	text := func(field protowire.Number, value string) {
		if value != "" {
			data = protowire.AppendTag(data, field, protowire.BytesType)
			data = protowire.AppendString(data, value)
		}
	}
	text(fieldID, r.ID)
	text(fieldType, string(r.Type))
	text(fieldLane, r.Lane)
	data = protowire.AppendTag(data, fieldReceivedAt, protowire.VarintType)
	data = protowire.AppendVarint(data, uint64(r.Request.ReceivedAt.UnixNano()))
	text(fieldMethod, r.Request.Method)
	text(fieldPath, r.Request.Path)
	text(fieldQuery, r.Request.Query)
	for name, values := range r.Request.Header {
		for _, value := range values {
			text(fieldHeader, name+":"+value)
		}
	}
	if len(r.Request.Body) > 0 {
		data = protowire.AppendTag(data, fieldBody, protowire.BytesType)
		data = protowire.AppendBytes(data, r.Request.Body)
	}
	text(fieldTrace, r.Trace)
	text(fieldName, r.Name)
	binary.BigEndian.PutUint32(data, checksum(keyOf(seq), data[4:]))
	return data
}

// checksum covers a value and the key under which it is stored: what moved is as wrong as what changed.
func checksum(key, data []byte) uint32 {
	return crc32.Update(crc32.Checksum(data, castagnoli), castagnoli, key)
}

// intact is whether a stored record is what was written under its sequence number.
func intact(seq uint64, data []byte) bool {
	return len(data) > 4 && binary.BigEndian.Uint32(data) == checksum(keyOf(seq), data[4:])
}

// A sealed value is a mark, a checksum, and JSON.
const (
	sealMark   = 0x01
	sealHeader = 5
)

// seal writes a value as JSON with a checksum.
func seal(key []byte, value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	data := append(make([]byte, sealHeader, sealHeader+len(text)), text...)
	data[0] = sealMark
	binary.BigEndian.PutUint32(data[1:], checksum(key, text))
	return data, nil
}

// unseal reads what seal wrote.
func unseal(key, data []byte, value any) error {
	if len(data) < sealHeader || data[0] != sealMark || binary.BigEndian.Uint32(data[1:]) != checksum(key, data[sealHeader:]) {
		return errChecksum
	}
	return json.Unmarshal(data[sealHeader:], value)
}

// fields calls each for the fields of a record, in order, for as long as it wants more: with a field's text
// or its number, as it is the one or the other.
func fields(data []byte, each func(field protowire.Number, text []byte, number uint64) (more bool)) error {
	for len(data) > 0 {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		var text []byte
		var number uint64
		switch kind {
		case protowire.BytesType:
			text, n = protowire.ConsumeBytes(data)
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(data)
		default: // a later version's
			n = protowire.ConsumeFieldValue(field, kind, data)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		if !each(field, text, number) {
			return nil
		}
	}
	return nil
}

func timeOf(nanoseconds uint64) time.Time { return time.Unix(0, int64(nanoseconds)).UTC() }

// decode reads a record; it keeps nothing of data.
func decode(seq uint64, data []byte) (Record, error) {
	r := Record{Seq: seq}
	if !intact(seq, data) {
		return r, errChecksum
	}
	err := fields(data[4:], func(field protowire.Number, text []byte, number uint64) bool {
		r.set(field, text, number)
		return true
	})
	return r, err
}

func (r *Record) set(field protowire.Number, text []byte, number uint64) {
	switch field {
	case fieldID:
		r.ID = string(text)
	case fieldType:
		r.Type = event.Type(text)
	case fieldLane:
		r.Lane = string(text)
	case fieldReceivedAt:
		r.Request.ReceivedAt = timeOf(number)
	case fieldMethod:
		r.Request.Method = string(text)
	case fieldPath:
		r.Request.Path = string(text)
	case fieldQuery:
		r.Request.Query = string(text)
	case fieldHeader:
		if r.Request.Header == nil {
			r.Request.Header = http.Header{}
		}
		name, value, _ := strings.Cut(string(text), ":")
		r.Request.Header[name] = append(r.Request.Header[name], value)
	case fieldBody:
		r.Request.Body = slices.Clone(text)
	case fieldTrace:
		r.Trace = string(text)
	case fieldName:
		r.Name = string(text)
	}
}

// headOf reads the fields of a record that stand before its request. What cannot be read stays empty.
func headOf(seq uint64, data []byte) Head {
	h := Head{Seq: seq}
	if len(data) < 4 {
		return h
	}
	_ = fields(data[4:], func(field protowire.Number, text []byte, number uint64) bool {
		switch field {
		case fieldID:
			h.ID = string(text)
		case fieldType:
			h.Type = event.Type(text)
		case fieldLane:
			h.Lane = string(text)
		case fieldReceivedAt:
			h.ReceivedAt = timeOf(number)
		}
		return field < fieldReceivedAt
	})
	return h
}

// laneOf reads a record's lane alone. What cannot be read stays empty.
func laneOf(data []byte) (lane string) {
	if len(data) < 4 {
		return ""
	}
	_ = fields(data[4:], func(field protowire.Number, text []byte, _ uint64) bool {
		if field == fieldLane {
			lane = string(text)
		}
		return field < fieldLane
	})
	return lane
}

// letter is a dead letter as it is stored.
type letter struct {
	Record   []byte    `json:"record"`
	Reason   string    `json:"reason"`
	Attempts int32     `json:"attempts"`
	Status   int       `json:"status,omitempty"`
	Reply    string    `json:"reply,omitempty"`
	Time     time.Time `json:"time"`
}

// letterKey is what a dead letter's checksum covers beside it: whose it is, and of which event.
func letterKey(target string, seq uint64) []byte { return append([]byte(target+"/"), keyOf(seq)...) }

func encodeLetter(target string, d *DeadLetter) ([]byte, error) {
	seq := d.Record.Seq
	return seal(letterKey(target, seq), letter{Record: encode(seq, &d.Record), Reason: d.Reason, Attempts: d.Attempts, Status: d.Status, Reply: d.Reply, Time: d.Time})
}

func decodeLetter(target string, seq uint64, data []byte) (DeadLetter, error) {
	var l letter
	if err := unseal(letterKey(target, seq), data, &l); err != nil {
		return DeadLetter{}, err
	}
	record, err := decode(seq, l.Record)
	return DeadLetter{Record: record, Reason: l.Reason, Attempts: l.Attempts, Status: l.Status, Reply: l.Reply, Time: l.Time}, err
}
