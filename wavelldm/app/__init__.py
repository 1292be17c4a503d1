"""What people open in a browser: listening tests and the page of the models.

Read `listen` (how a test is made), `listen_store` and `listen_server` (how ratings are kept), then `listen_report`
(what they tell). The page that listeners see is in pages/.
"""
