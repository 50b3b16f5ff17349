package sandbox

import (
	"encoding/json"
	"net/http"
	"strconv"
)

func (s *Sandbox) serveEvents(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
		return
	}
	body, err := json.Marshal(s.Events())
	if err != nil {
		http.Error(w, "encoding the events: "+err.Error(), http.StatusInternalServerError)
		return
	}
	sendJSON(w, http.StatusOK, body)
}

func (s *Sandbox) serveFaults(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "use POST", http.StatusMethodNotAllowed)
		return
	}
	query, times := r.URL.Query(), 1
	if text := query.Get("times"); text != "" {
		var err error
		if times, err = strconv.Atoi(text); err != nil || times < -1 {
			http.Error(w, "times must be a number from -1", http.StatusBadRequest)
			return
		}
	}
	name := query.Get("name")
	if name == "" && times == 0 {
		s.Clear()
		w.WriteHeader(http.StatusNoContent)
		return
	}
	fault, err := ParseFault(name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.Play(fault, times)
	w.WriteHeader(http.StatusNoContent)
}
