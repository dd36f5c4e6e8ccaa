package render

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"

	"github.com/pbxhook/pbxhook/receiver/event"
)

const (
	typeJSON = "application/json"
	typeForm = "application/x-www-form-urlencoded"
	typeText = "text/plain; charset=utf-8"
)

// maxTemplated is how long a body from a template may be, in bytes.
const maxTemplated = 4 << 20

// templated makes the request of the template's value: an object or list is JSON, a text is text, and
// where the target's Content-Type says form, or the method is GET, an object is parameters.
func (s Shape) templated(e *event.Event) (*Request, error) {
	value, err := s.Template.Make(e)
	if err != nil { // which may show what the event holds, and this goes into logs
		return nil, errors.New("template: it cannot be evaluated for this event; see with pbxhook decode what such an event holds")
	}
	request := &Request{Method: s.Method, URL: s.URL, Header: http.Header{}}
	if request.Method == "" {
		request.Method = http.MethodPost
	}
	media, _, _ := mime.ParseMediaType(s.ContentType) // what is no media type is not a form's
	object, isObject := value.(map[string]any)
	text, isText := value.(string)
	switch {
	case request.Method == http.MethodGet && isObject:
		return request, request.addQuery(object)
	case request.Method == http.MethodGet:
		return nil, errors.New("template: expected an object, whose members become the parameters of a GET")
	case media == typeForm && isObject:
		form, err := parameters(object)
		if err != nil {
			return nil, err
		}
		request.Body = []byte(form)
		request.Header.Set("Content-Type", typeForm)
	case isText:
		request.Body = []byte(text)
		request.Header.Set("Content-Type", typeText)
	default:
		if request.Body, err = event.JSON(value); err != nil {
			return nil, err
		}
		request.Header.Set("Content-Type", typeJSON)
	}
	if len(request.Body) > maxTemplated {
		return nil, fmt.Errorf("template: expected a body of at most %d bytes", maxTemplated)
	}
	return request, nil
}

// addQuery adds parameters to the URL, after those that it has.
func (r *Request) addQuery(object map[string]any) error {
	target, err := url.Parse(r.URL)
	if err != nil {
		return fmt.Errorf("read the target's URL: %w", err)
	}
	query, err := parameters(object)
	if err != nil {
		return err
	}
	if target.RawQuery != "" && query != "" {
		query = target.RawQuery + "&" + query
	}
	if query != "" {
		target.RawQuery = query
	}
	r.URL = target.String()
	return nil
}

// parameters are an object's members as a form: texts as they are, null empty, all else as JSON.
func parameters(object map[string]any) (string, error) {
	values := url.Values{}
	for name, value := range object {
		switch value := value.(type) {
		case nil:
			values.Set(name, "")
		case string:
			values.Set(name, value)
		default:
			text, err := event.JSON(value)
			if err != nil {
				return "", err
			}
			values.Set(name, string(text))
		}
	}
	return values.Encode(), nil
}
