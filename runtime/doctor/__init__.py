"""What of this machine matters to sfpp, what does not fit together, and what to do first: ``sfpp-engine --doctor``.

``looking`` looks, ``advice`` compares with the facts of ``runtime/tensorrt``, ``words`` prints.
"""
