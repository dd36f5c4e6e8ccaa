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
type Event struct {
	Provider   v1alpha1.Provider `json:"provider"`
	Name       string            `json:"event"` // the provider's own name of the event
	Type       Type              `json:"type"`
	ReceivedAt time.Time         `json:"receivedAt"`

	Call             *Call             `json:"call,omitempty"`
	Extension        *Extension        `json:"extension,omitempty"`
	Trunk            *Trunk            `json:"trunk,omitempty"`
	SMS              *SMS              `json:"sms,omitempty"`
	Fax              *Fax              `json:"fax,omitempty"`
	Voicemail        *Voicemail        `json:"voicemail,omitempty"`
	Survey           *Survey           `json:"survey,omitempty"`
	Campaign         *Campaign         `json:"campaign,omitempty"`
	QueueReservation *QueueReservation `json:"queueReservation,omitempty"`

	// Reason says why the request could not be decoded. Request is then what arrived.
	Reason  string      `json:"reason,omitempty"`
	Request *RawRequest `json:"request,omitempty"`

	Links   *Links          `json:"links,omitempty"`
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
	ID              string            `json:"id"`    // stable over all events of the call
	LegID           string            `json:"legId"` // one leg of it, where the PBX tells legs apart
	Direction       string            `json:"direction"`
	CallType        v1alpha1.CallType `json:"callType"`
	State           string            `json:"state"`
	From            Party             `json:"from"`
	To              Party             `json:"to"`
	DID             string            `json:"did"`
	Queue           string            `json:"queue"`
	Context         string            `json:"context"`
	Final           *bool             `json:"final"` // false: one leg of a call that goes on; null: not said
	Agents          []Agent           `json:"agents"`
	AnsweredBy      string            `json:"answeredBy"` // ivr, ringGroup, queue, extension, customer
	StartTime       *time.Time        `json:"startTime"`
	RingTime        *time.Time        `json:"ringTime"`
	AnswerTime      *time.Time        `json:"answerTime"`
	EndTime         *time.Time        `json:"endTime"`
	DurationSeconds *int64            `json:"durationSeconds"`
	TalkSeconds     *int64            `json:"talkSeconds"`
	WaitSeconds     *int64            `json:"waitSeconds"`
	Disposition     string            `json:"disposition"`
	HangupCause     string            `json:"hangupCause"`
	EndedBy         string            `json:"endedBy"`
	Recording       string            `json:"recording"`
	Digits          string            `json:"digits"`
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
	Number    string `json:"number"` // E.164, or empty
	Raw       string `json:"raw"`    // as sent
	Name      string `json:"name"`
	Extension string `json:"extension"` // an internal number
}

// Agent is a person of the call centre who was part of a call.
type Agent struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Number string `json:"number"`
}

// Extension is an internal number and its state.
type Extension struct {
	Number      string `json:"number"`
	State       string `json:"state"` // idle, ringing, inUse, paused, unavailable
	Participant string `json:"participant"`
	Queue       string `json:"queue"`
}

// Trunk is a line to the outside and its state.
type Trunk struct {
	Name       string `json:"name"`
	Technology string `json:"technology"`
	State      string `json:"state"`
}

// SMS is a text message.
type SMS struct {
	From       Party  `json:"from"`
	To         Party  `json:"to"`
	Text       string `json:"text"`
	CustomerID string `json:"customerId"`
	UserID     string `json:"userId"`
}

// Fax is a fax that was received or sent.
type Fax struct {
	ID      string `json:"id"`
	From    Party  `json:"from"`
	To      Party  `json:"to"`
	State   string `json:"state"`
	Pages   *int64 `json:"pages"`
	Error   string `json:"error"`
	Station string `json:"station"`
}

// Voicemail is a message left in a mailbox, or the e-mail about it.
type Voicemail struct {
	ID              string `json:"id"`
	Mailbox         string `json:"mailbox"`
	State           string `json:"state"`
	DurationSeconds *int64 `json:"durationSeconds"`
	File            string `json:"file"`
	Caller          string `json:"caller"`
	Message         string `json:"message"`
	Receiver        string `json:"receiver"`
}

// Survey is a caller's answer after a call.
type Survey struct {
	Point *int64 `json:"point"`
	Label string `json:"label"`
	Queue string `json:"queue"`
	From  Party  `json:"from"`
	To    Party  `json:"to"`
}

// Campaign is the report of one number of an automatic dialler's campaign.
type Campaign struct {
	ID          string          `json:"id"`
	Name        string          `json:"name"`
	Number      string          `json:"number"`
	Disposition string          `json:"disposition"`
	Try         *int64          `json:"try"`
	Repeat      *int64          `json:"repeat"`
	TalkSeconds *int64          `json:"talkSeconds"`
	WaitSeconds *int64          `json:"waitSeconds"`
	Tries       json.RawMessage `json:"tries"`
}

// QueueReservation is a caller's place in a queue that is kept for a call back.
type QueueReservation struct {
	Queue  string `json:"queue"`
	Caller string `json:"caller"`
}

// Links are the provider's REST resources for the call.
type Links struct {
	Call     string `json:"call"`
	CDRs     string `json:"cdrs"`
	Monitors string `json:"monitors"`
}

// RawRequest shows, inside an unparsed event, what arrived.
type RawRequest struct {
	Method      string `json:"method"`
	Path        string `json:"path"`
	Query       string `json:"query"`
	ContentType string `json:"contentType"`
	Body        string `json:"body"`
}
