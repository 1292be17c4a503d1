"""Programs with a face: `web_server` serves the browser app to this machine."""
