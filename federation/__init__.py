"""What crosses between server and centres (`wire`), and Flower's processes (`flower`).

It knows no scenarios, strategies or models: a job is a kind, a JSON body and arrays.
"""
