// py_layer_type.c: TransportLayer, the base class of transport layers.
//
// As it is, a layer changes nothing: wrap() and unwrap() give back what they were given.
// Subclasses are Python classes that replace what they need. What the base class keeps
// itself are the two things that a call can say besides what it returns: bytes to be sent
// at once (emit), and that no more will come (end). They are kept here until the caller,
// py_layer.c, collects them, so a layer never runs inside another one's call.

#include "py_layer.h"

#include "py_convert.h"

PyDoc_STRVAR(
    wrap_doc,
    "wrap($self, data, /)\n--\n\n"
    "Return what goes down instead of data (bytes) that the program has written.\n\n"
    "It may be more or less; a layer may hold bytes back and give them later. What is raised\n"
    "here closes the connection. Must not switch.");

PyDoc_STRVAR(
    unwrap_doc,
    "unwrap($self, data, /)\n--\n\n"
    "Return what goes up instead of data (bytes) that came from below.\n\n"
    "b\"\" as data says that the stream from below has ended, once; raise if that is too\n"
    "early. None as result says that no more will come from this layer, as end() does. What\n"
    "is raised here closes the connection. Must not switch.");

static PyObject *
TransportLayer_pass(TransportLayerObject *layer, PyObject *data)
{
    (void)layer;
    return Py_NewRef(data);
}

PyDoc_STRVAR(
    finish_doc,
    "finish($self, /)\n--\n\n"
    "Return the last bytes that go down.\n\n"
    "Called when the connection closes in order or the layer is popped, at most once; nothing is\n"
    "wrapped after it. Must not switch.");

static PyObject *
TransportLayer_finish(TransportLayerObject *layer, PyObject *unused)
{
    (void)layer;
    (void)unused;
    return PyBytes_FromStringAndSize(NULL, 0);
}

PyDoc_STRVAR(
    started_doc,
    "started($self, /)\n--\n\n"
    "Begin: the layer has been pushed, and may emit() what it has to say. Must not switch.");

PyDoc_STRVAR(
    on_clear_doc,
    "on_clear($self, /)\n--\n\n"
    "End: the connection has let go of the layer. Called exactly once. Must not switch.");

static PyObject *
TransportLayer_do_nothing(TransportLayerObject *layer, PyObject *unused)
{
    (void)layer;
    (void)unused;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    emit_doc,
    "emit($self, data, /)\n--\n\n"
    "Send data (bytes-like) downwards: what the layer itself has to say.\n\n"
    "For use within wrap(), unwrap(), finish() and started(). It goes before what that call\n"
    "returns, and also if it raises. Raises TypeError for what is not\n"
    "bytes-like. Never switches.");

static PyObject *
TransportLayer_emit(TransportLayerObject *layer, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    int error = view.len == 0
                    ? 0
                    : byte_block_append(&layer->emitted, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    if (error < 0) {
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    end_doc,
    "end($self, /)\n--\n\n"
    "Say that what unwrap() returns is the last. For use within it. Never switches.");

static PyObject *
TransportLayer_end(TransportLayerObject *layer, PyObject *unused)
{
    (void)unused;
    layer->has_ended = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(take_emitted_doc,
             "take_emitted($self, /)\n--\n\n"
             "Return what emit() has been given since the last call.\n\n"
             "For driving a layer without a connection. Never switches.");

PyObject *
layer_take_emitted(TransportLayerObject *layer)
{
    PyObject *bytes = PyBytes_FromStringAndSize(
        byte_block_data(&layer->emitted), (Py_ssize_t)byte_block_length(&layer->emitted));
    if (bytes != NULL) {
        byte_block_clear(&layer->emitted);
    }
    return bytes;
}

static PyObject *
TransportLayer_take_emitted(TransportLayerObject *layer, PyObject *unused)
{
    (void)unused;
    return layer_take_emitted(layer);
}

static PyObject *
get_ended(TransportLayerObject *layer, void *unused)
{
    (void)unused;
    return PyBool_FromLong(layer->has_ended);
}

static PyObject *
get_false(TransportLayerObject *layer, void *unused)
{
    (void)layer;
    (void)unused;
    Py_RETURN_FALSE;
}

static PyMethodDef TransportLayer_methods[] = {
    {"wrap", (PyCFunction)TransportLayer_pass, METH_O, wrap_doc},
    {"unwrap", (PyCFunction)TransportLayer_pass, METH_O, unwrap_doc},
    {"finish", (PyCFunction)TransportLayer_finish, METH_NOARGS, finish_doc},
    {"started", (PyCFunction)TransportLayer_do_nothing, METH_NOARGS, started_doc},
    {"on_clear", (PyCFunction)TransportLayer_do_nothing, METH_NOARGS, on_clear_doc},
    {"emit", (PyCFunction)TransportLayer_emit, METH_O, emit_doc},
    {"end", (PyCFunction)TransportLayer_end, METH_NOARGS, end_doc},
    {"take_emitted", (PyCFunction)TransportLayer_take_emitted, METH_NOARGS,
     take_emitted_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef TransportLayer_getset[] = {
    {"ended", (getter)get_ended, NULL,
     PyDoc_STR("True once no more will come out of unwrap()."), NULL},
    {"_is_tls", (getter)get_false, NULL,
     PyDoc_STR("True in a subclass that conn.tls has to find."), NULL},
    {"_takes_views", (getter)get_false, NULL,
     PyDoc_STR("True in a subclass whose wrap() can do with memoryviews of bytes."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyObject *
TransportLayer_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    if (check_made_of_nothing(type, "TransportLayer", arguments, keywords) < 0) {
        return NULL;
    }
    return type->tp_alloc(type, 0);
}

static int
TransportLayer_traverse(TransportLayerObject *layer, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(layer));
    Py_VISIT(layer->below);
    return 0;
}

static void
TransportLayer_dealloc(TransportLayerObject *layer)
{
    PyTypeObject *type = Py_TYPE(layer);
    PyObject_GC_UnTrack(layer);
    byte_block_clear(&layer->emitted);
    Py_CLEAR(layer->below);
    type->tp_free(layer);
    Py_DECREF(type);
}

PyDoc_STRVAR(
    TransportLayer_doc,
    "TransportLayer()\n--\n\n"
    "Base class of what lies between a connection and its descriptor.\n\n"
    "A layer serves one connection, once: conn.push_layer(layer). Its methods may not wait;\n"
    "what they raise closes the connection, and whoever uses it next gets it.\n\n"
    "Source: libsock's struct sockTLC; libevent's filters.");

PyTypeObject *
layer_type_new(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_doc, (void *)TransportLayer_doc},
        {Py_tp_new, TransportLayer_new},
        {Py_tp_dealloc, TransportLayer_dealloc},
        {Py_tp_traverse, TransportLayer_traverse},
        {Py_tp_methods, TransportLayer_methods},
        {Py_tp_getset, TransportLayer_getset},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "pycoronet.TransportLayer",
        .basicsize = sizeof(TransportLayerObject),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
                 Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    return add_type(module, &spec);
}
