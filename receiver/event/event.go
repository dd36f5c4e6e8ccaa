// Package event is what an event is on its way through the receiver: the request as the PBX sent
// it (Request), and what a decoder made of it (Event, the canonical form that targets get).
//
// It must not know any provider, nor how events are kept or delivered.
package event

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// TypePrefix is what a CloudEvent's type has before the canonical type.
const TypePrefix = "io.pbxhook."

// Type is a canonical event type, such as call.ended.
type Type = v1alpha1.EventType

// The canonical event types.
const (
	CallStarted       Type = "call.started"
	CallRinging       Type = "call.ringing"
	CallAnswered      Type = "call.answered"
	CallHeld          Type = "call.held"
	CallResumed       Type = "call.resumed"
	CallDTMF          Type = "call.dtmf"
	CallTransferred   Type = "call.transferred"
	CallMissed        Type = "call.missed"
	CallEnded         Type = "call.ended"
	QueueCompleted    Type = "queue.completed"
	RecordingReady    Type = "recording.ready"
	ExtensionState    Type = "extension.state"
	ExtensionAdded    Type = "extension.added"
	ExtensionRemoved  Type = "extension.removed"
	TrunkState        Type = "trunk.state"
	TrunkAdded        Type = "trunk.added"
	TrunkRemoved      Type = "trunk.removed"
	QueueWrapup       Type = "queue.wrapup"
	QueueReserved     Type = "queue.reserved"
	SMSReceived       Type = "sms.received"
	FaxReceived       Type = "fax.received"
	FaxSent           Type = "fax.sent"
	VoicemailReceived Type = "voicemail.received"
	VoicemailEmailed  Type = "voicemail.emailed"
	SurveyAnswered    Type = "survey.answered"
	CampaignReported  Type = "campaign.reported"
	Ping              Type = "ping"
	Other             Type = "other"
	Unparsed          Type = "unparsed"
)

// Event is the canonical event: the data of the CloudEvent that targets get, and what filters see.
// A field that the PBX did not give is empty or null, never guessed.
//
// This type is the one source: the JSON Schema and the table of fields in docs are made from it and
// its comments, CEL's types and the mapping rules follow it.
type Event struct {
	Provider   v1alpha1.Provider `json:"provider"`   // make of the PBX
	Name       string            `json:"event"`      // the provider's own name of the event
	Type       Type              `json:"type"`       // canonical type
	ReceivedAt time.Time         `json:"receivedAt"` // when the receiver took it, in UTC

	Call             *Call             `json:"call,omitempty"`             // the call that the event belongs to
	Extension        *Extension        `json:"extension,omitempty"`        // of extension.* and of call.ringing from Simotel
	Trunk            *Trunk            `json:"trunk,omitempty"`            // of trunk.*
	SMS              *SMS              `json:"sms,omitempty"`              // of sms.received
	Fax              *Fax              `json:"fax,omitempty"`              // of fax.received and fax.sent
	Voicemail        *Voicemail        `json:"voicemail,omitempty"`        // of voicemail.received and voicemail.emailed
	Survey           *Survey           `json:"survey,omitempty"`           // of survey.answered
	Campaign         *Campaign         `json:"campaign,omitempty"`         // of campaign.reported
	QueueReservation *QueueReservation `json:"queueReservation,omitempty"` // of queue.reserved

	Reason  string      `json:"reason,omitempty"`  // why the request could not be decoded, of unparsed
	Request *RawRequest `json:"request,omitempty"` // what arrived, of unparsed

	Links   *Links          `json:"links,omitempty"`   // the provider's REST resources for the call
	Payload json.RawMessage `json:"payload,omitempty"` // the PBX's own fields, values as sent

	// ID is the PBX's own id of the event, empty where it has none (all but VoIPstudio).
	ID string `json:"-"`
	// Time is when it happened, zero where the PBX does not say.
	Time time.Time `json:"-"`
	// Repeats is set where the PBX is known to send one event twice, so that an identical request
	// within a short time is the same event (VoIPstudio where it gives an id, Acefone).
	Repeats bool `json:"-"`
	// OtherVersion is the version in which the request came, where it is not the one that the webhook
	// was told to expect (Simotel).
	OtherVersion string `json:"-"`
	// Defect is the line at which the decoder failed, which is a defect of pbxhook; empty otherwise.
	Defect string `json:"-"`
	// NeedsAnswer says why the request is no event but a question that the PBX waits on, such as
	// where to route a call. It is empty for events.
	NeedsAnswer string `json:"-"`
}

// CallID is the id of the call that the event belongs to, or empty.
func (e *Event) CallID() string {
	if e.Call == nil {
		return ""
	}
	return e.Call.ID
}

// NeedCall is the event's call, made if there is none yet.
func (e *Event) NeedCall() *Call {
	if e.Call == nil {
		e.Call = &Call{}
	}
	return e.Call
}

// Complete gives the event the object that its type has, also when the PBX gave nothing for it, and
// takes away a call that it does not name.
func (e *Event) Complete() {
	switch subject, _, _ := strings.Cut(string(e.Type), "."); {
	case subject == "call", e.Type == QueueCompleted, e.Type == QueueWrapup, e.Type == RecordingReady:
		e.NeedCall()
		return
	case subject == "extension" && e.Extension == nil:
		e.Extension = &Extension{}
	case subject == "trunk" && e.Trunk == nil:
		e.Trunk = &Trunk{}
	case subject == "sms" && e.SMS == nil:
		e.SMS = &SMS{}
	case subject == "fax" && e.Fax == nil:
		e.Fax = &Fax{}
	case subject == "voicemail" && e.Voicemail == nil:
		e.Voicemail = &Voicemail{}
	case subject == "survey" && e.Survey == nil:
		e.Survey = &Survey{}
	case subject == "campaign" && e.Campaign == nil:
		e.Campaign = &Campaign{}
	case e.Type == QueueReserved && e.QueueReservation == nil:
		e.QueueReservation = &QueueReservation{}
	}
	if e.Call != nil && e.Call.ID == "" {
		e.Call = nil
	}
}

// Lane names the events that must reach a target in the order received: those of one call, else of
// one extension, trunk or queue. It is empty for an event that stands alone.
func (e *Event) Lane() string {
	switch {
	case e.CallID() != "":
		return e.CallID()
	case e.Extension != nil && e.Extension.Number != "":
		return "exten:" + e.Extension.Number
	case e.Trunk != nil && e.Trunk.Name != "":
		return "trunk:" + e.Trunk.Name
	case e.QueueReservation != nil && e.QueueReservation.Queue != "":
		return "queue:" + e.QueueReservation.Queue
	case e.Call != nil && e.Call.Queue != "":
		return "queue:" + e.Call.Queue
	}
	return ""
}

// Call is what is known of a call at the time of the event.
type Call struct {
	ID              string            `json:"id"`              // stable over all events of the call
	LegID           string            `json:"legId"`           // one leg of it, where the PBX tells legs apart
	Reference       string            `json:"reference"`       // the id that the integrator gave when it started the call
	Direction       string            `json:"direction"`       // inbound, outbound, internal
	CallType        v1alpha1.CallType `json:"callType"`        // Inbound, Outbound, ClickToCall, Internal
	State           string            `json:"state"`           // after the event: started, ringing, answered, held, missed, ended; of queue.wrapup start, end, timeout
	From            Party             `json:"from"`            // who calls
	To              Party             `json:"to"`              // who is called
	DID             string            `json:"did"`             // the PBX's own number; E.164 where that can be told
	Queue           string            `json:"queue"`           // the queue that the call went through
	Context         string            `json:"context"`         // VoIPstudio's context, such as LOCAL_USER, QUEUE, RG-83502
	Final           *bool             `json:"final"`           // false: one leg of a call that goes on; true: the whole call; null: not said
	Agents          []Agent           `json:"agents"`          // the people of the call centre in the call
	AnsweredBy      string            `json:"answeredBy"`      // of call.answered: ivr, ringGroup, queue, extension, customer
	StartTime       *time.Time        `json:"startTime"`       // when the call began, in UTC
	RingTime        *time.Time        `json:"ringTime"`        // when it began to ring, in UTC
	AnswerTime      *time.Time        `json:"answerTime"`      // when a person answered it, in UTC
	EndTime         *time.Time        `json:"endTime"`         // when it ended, in UTC
	DurationSeconds *int64            `json:"durationSeconds"` // as the PBX counts it
	TalkSeconds     *int64            `json:"talkSeconds"`     // how long was talked
	WaitSeconds     *int64            `json:"waitSeconds"`     // how long the caller waited
	Disposition     string            `json:"disposition"`     // answered, noAnswer, busy, or the PBX's own word in lower case
	HangupCause     string            `json:"hangupCause"`     // the PBX's own words
	EndedBy         string            `json:"endedBy"`         // who hung up: caller, callee, agent
	Recording       string            `json:"recording"`       // file, id or URL; a URL may hold a token
	Digits          string            `json:"digits"`          // keys that the caller pressed
}

// The values of Call.Direction.
const (
	Inbound  = "inbound"
	Outbound = "outbound"
	Internal = "internal"
)

// The values of Call.State.
const (
	StateStarted  = "started"
	StateRinging  = "ringing"
	StateAnswered = "answered"
	StateHeld     = "held"
	StateMissed   = "missed"
	StateEnded    = "ended"
)

// Party is one end of a call or message.
type Party struct {
	Number    string `json:"number"`    // E.164, or empty
	Raw       string `json:"raw"`       // as sent
	Name      string `json:"name"`      // as sent, without the quotes of SIP
	Extension string `json:"extension"` // an internal number: 2 to 6 digits with no plus sign
}

// Agent is a person of the call centre who was part of a call.
type Agent struct {
	ID     string `json:"id"`     // the PBX's id of the person
	Name   string `json:"name"`   // as sent
	Number string `json:"number"` // extension, seat or phone, as sent
	Email  string `json:"email"`  // as sent
}

// Extension is an internal number and its state.
type Extension struct {
	Number      string `json:"number"`      // the internal number
	State       string `json:"state"`       // idle, ringing, inUse, paused, unavailable
	Participant string `json:"participant"` // who is at the other end
	Queue       string `json:"queue"`       // the queue that the call came through
}

// Trunk is a line to the outside and its state.
type Trunk struct {
	Name       string `json:"name"`       // as the PBX calls it
	Technology string `json:"technology"` // such as SIP
	State      string `json:"state"`      // the PBX's own word in lower case
}

// SMS is a text message.
type SMS struct {
	From       Party  `json:"from"`       // who sent it
	To         Party  `json:"to"`         // who got it
	Text       string `json:"text"`       // the message
	CustomerID string `json:"customerId"` // the PBX's id of the account
	UserID     string `json:"userId"`     // the PBX's id of the user
}

// Fax is a fax that was received or sent.
type Fax struct {
	ID      string `json:"id"`      // the PBX's id of the fax
	From    Party  `json:"from"`    // who sent it
	To      Party  `json:"to"`      // who got it
	State   string `json:"state"`   // the PBX's own word in lower case, such as success, failed, sending
	Pages   *int64 `json:"pages"`   // how many were transmitted
	Error   string `json:"error"`   // what went wrong
	Station string `json:"station"` // the remote station's id
}

// Voicemail is a message left in a mailbox, or the e-mail about it.
type Voicemail struct {
	ID              string `json:"id"`              // the PBX's id of the message
	Mailbox         string `json:"mailbox"`         // whose
	State           string `json:"state"`           // success, failed
	DurationSeconds *int64 `json:"durationSeconds"` // how long it is
	File            string `json:"file"`            // its name
	Caller          string `json:"caller"`          // who left it
	Message         string `json:"message"`         // why it failed
	Receiver        string `json:"receiver"`        // whom the e-mail went to
}

// Survey is a caller's answer after a call.
type Survey struct {
	Point *int64 `json:"point"` // the answer
	Label string `json:"label"` // which survey
	Queue string `json:"queue"` // of which queue
	From  Party  `json:"from"`  // who called
	To    Party  `json:"to"`    // who was called
}

// Campaign is the report of one number of an automatic dialler's campaign.
type Campaign struct {
	ID          string          `json:"id"`          // the PBX's id of the campaign
	Name        string          `json:"name"`        // its name
	Number      string          `json:"number"`      // that was called, as sent
	Disposition string          `json:"disposition"` // answered, noAnswer, busy, or the PBX's own word in lower case
	Try         *int64          `json:"try"`         // which attempt it was
	Repeat      *int64          `json:"repeat"`      // how many there are in all
	TalkSeconds *int64          `json:"talkSeconds"` // how long was talked
	WaitSeconds *int64          `json:"waitSeconds"` // how long it rang
	Tries       json.RawMessage `json:"tries"`       // the attempts, as sent
}

// QueueReservation is a caller's place in a queue that is kept for a call back.
type QueueReservation struct {
	Queue  string `json:"queue"`  // which queue
	Caller string `json:"caller"` // who, as sent
}

// Links are the provider's REST resources for the call, without the host.
type Links struct {
	Call     string `json:"call"`     // the call, while it goes on
	CDRs     string `json:"cdrs"`     // its detail records
	Monitors string `json:"monitors"` // its recordings
}

// RawRequest shows, inside an unparsed event, what arrived.
type RawRequest struct {
	Method      string `json:"method"`               // GET or POST
	Path        string `json:"path"`                 // what followed the webhook's own path
	Query       string `json:"query"`                // without the token
	ContentType string `json:"contentType"`          // as sent
	Body        string `json:"body"`                 // as sent; what is no UTF-8 in it is replaced
	BodyBase64  string `json:"bodyBase64,omitempty"` // the body byte for byte, where it is no UTF-8
}
