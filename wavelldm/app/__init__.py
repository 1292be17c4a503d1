"""What people open in a browser: listening tests, the page of the models, and the browser app.

Read `listen` (how a test is made), `listen_store` and `listen_server` (how ratings are kept), then `listen_report`
(what they tell). `studio` is what the page of the models does, `page` the page. What a browser loads is in pages/.
`web_server` serves the browser app, which is built into web/ beside this folder.
"""
