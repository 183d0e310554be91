variable "name" {
  description = "Host name of the service."
  type        = string
}

variable "zone_id" {
  description = "ID of the Route 53 hosted zone of the name; null if its DNS is elsewhere."
  type        = string
}

variable "cluster_name" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "ingress" {
  description = "Namespace and name of the Ingress, separated by a slash."
  type        = string
}
